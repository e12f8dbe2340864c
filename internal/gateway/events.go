package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// An event is one server-sent event (HTML, Server-sent events), or, when
// comment is set, a line that keeps the connection alive.
type event struct {
	comment bool
	name    string
	id      string
	hasID   bool
	retry   string
	data    []byte
}

var errEventTooLarge = errors.New("an event of the upstream is larger than the limit")

// An eventReader takes a stream apart. It holds one event at a time.
type eventReader struct {
	r    *bufio.Reader
	max  int
	line []byte
}

func newEventReader(r io.Reader, max int) *eventReader {
	return &eventReader{r: bufio.NewReaderSize(r, 4<<10), max: max}
}

// next returns the next event. At the end of the stream it returns io.EOF; what
// was not ended by an empty line is not an event.
func (e *eventReader) next() (event, error) {
	var ev event
	size, any := 0, false
	for {
		line, err := e.readLine()
		if err != nil {
			return event{}, err
		}
		if size += len(line) + 1; size > e.max {
			return event{}, errEventTooLarge
		}
		if len(line) == 0 {
			if any {
				return ev, nil
			}
			size = 0
			continue
		}
		if line[0] == ':' {
			if any {
				continue
			}
			return event{comment: true}, nil
		}
		any = true
		field, value, _ := bytes.Cut(line, []byte(":"))
		ev.set(string(field), bytes.TrimPrefix(value, []byte(" ")))
	}
}

func (ev *event) set(field string, value []byte) {
	switch field {
	case "event":
		ev.name = string(value)
	case "data":
		if ev.data != nil {
			ev.data = append(ev.data, '\n')
		}
		ev.data = append(ev.data, value...)
		if ev.data == nil {
			ev.data = []byte{}
		}
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			ev.id, ev.hasID = string(value), true
		}
	case "retry":
		if len(value) > 0 && len(value) < 10 && len(bytes.Trim(value, "0123456789")) == 0 {
			ev.retry = string(value)
		}
	}
}

// readLine returns the next line without its end, which is LF, CR LF or CR.
func (e *eventReader) readLine() ([]byte, error) {
	e.line = e.line[:0]
	for {
		chunk, err := e.r.ReadSlice('\n')
		e.line = append(e.line, chunk...)
		if len(e.line) > e.max {
			return nil, errEventTooLarge
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		break
	}
	line := bytes.TrimSuffix(e.line[:len(e.line)-1], []byte("\r"))
	if bytes.IndexByte(line, '\r') >= 0 {
		// A CR alone also ends a line. Nobody sends it, and a client would read
		// other lines than we do.
		return nil, errors.New("an event of the upstream has a CR within a line")
	}
	return line, nil
}

// append writes the event as it goes to the client. Of an event with nothing
// that we know nothing goes.
func (ev *event) append(b []byte) []byte {
	if ev.comment {
		return append(b, ":\n\n"...)
	}
	n := len(b)
	if isEventName(ev.name) {
		b = append(append(append(b, "event: "...), ev.name...), '\n')
	}
	if ev.hasID {
		b = append(append(append(b, "id: "...), ev.id...), '\n')
	}
	if ev.retry != "" {
		b = append(append(append(b, "retry: "...), ev.retry...), '\n')
	}
	if ev.data != nil {
		for line := range bytes.SplitSeq(ev.data, []byte("\n")) {
			b = append(append(append(b, "data: "...), line...), '\n')
		}
	}
	if len(b) == n {
		return b
	}
	return append(b, '\n')
}

// isMessage reports whether the event's data is a message: the name is
// "message", or there is none.
func (ev *event) isMessage() bool {
	return !ev.comment && len(ev.data) > 0 && (ev.name == "" || ev.name == "message")
}

func isEventName(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}
