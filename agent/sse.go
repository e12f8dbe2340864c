package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// maxMessage is the largest message that is taken from a server, as one JSON
// answer or as one event.
const maxMessage = 16 << 20

// An event is one server-sent event (HTML Living Standard, Section 9.2).
type event struct {
	id    string
	name  string // "message" when the server gives none
	data  []byte
	retry time.Duration // 0 when the server gives none
}

// readEvents calls f for each event of a stream until the stream ends, which is
// nil, or f returns an error. An event that the stream's end cuts off is
// dropped, as the standard says. Lines end with LF or CRLF; the lone CR that the
// standard also knows would have to wait for the byte after it.
func readEvents(r io.Reader, f func(event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxMessage)
	e, size := event{}, 0
	for first := true; lines.Scan(); first = false {
		line := bytes.TrimSuffix(lines.Bytes(), []byte("\r"))
		if first {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if len(line) == 0 {
			if e.name == "" {
				e.name = "message"
			}
			e.data = bytes.TrimSuffix(e.data, []byte("\n"))
			if err := f(e); err != nil {
				return err
			}
			e, size = event{}, 0
			continue
		}
		if size += len(line); size > maxMessage {
			return fmt.Errorf("reading an event: it is larger than %d bytes", maxMessage)
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			e.data = append(append(e.data, value...), '\n')
		case "event":
			e.name = string(value)
		case "id":
			if !bytes.ContainsRune(value, 0) {
				e.id = string(value)
			}
		case "retry":
			if n, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				e.retry = time.Duration(n) * time.Millisecond
			}
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("reading an event: it is larger than %d bytes", maxMessage)
	} else if err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	return nil
}
