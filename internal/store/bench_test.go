package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/ledger"
)

// BenchmarkAppend measures what a caller waits for and what it costs, beside
// the least that durability can cost on the same disk in the same run: the same
// bytes, appended to a plain file by a group commit with fdatasync. One iteration
// is a round of 2,000 entries on each side, so a few are enough: -benchtime 5x.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			f := newFixture(b)
			s := f.open(func(o *Options) { o.Now = time.Now })
			file := newPlainLog(b)
			ctx := context.Background()
			template := decided("payroll")
			template.Decision = ledger.Refuse // nothing to finish
			draft, err := ledger.Prepare(template)
			if err != nil {
				b.Fatal(err)
			}
			plain := draft.AppendTo(nil, 1234567, ledger.FormatTime(time.Now()))
			var ours, theirs measure
			const round = 2000
			for b.Loop() {
				theirs.run(callers, round, func() error { return file.append(plain) })
				ours.run(callers, round, func() error {
					e := *template
					return s.Decide(ctx, &e, nil)
				})
			}
			slices.Sort(ours.waits)
			slices.Sort(theirs.waits)
			ours.report(b, "")
			theirs.report(b, "file-")
			b.ReportMetric(ours.rate()/theirs.rate(), "rate/file")
			b.ReportMetric(ours.quantile(0.50)/theirs.quantile(0.50), "p50/file")
			b.ReportMetric(ours.quantile(0.99)/theirs.quantile(0.99), "p99/file")
			if info, err := os.Stat(f.db() + "-wal"); err == nil {
				b.ReportMetric(float64(info.Size())/(1<<20), "wal-MiB") // it must not grow with the log
			}
		})
	}
}

type measure struct {
	waits []time.Duration
	wall  time.Duration
	cpu   time.Duration
}

func (m *measure) run(callers, n int, do func() error) {
	var wg sync.WaitGroup
	waits := make([]time.Duration, n)
	cpu, start := cpuTime(), time.Now()
	for c := range callers {
		wg.Go(func() {
			for i := c; i < n; i += callers {
				t := time.Now()
				if err := do(); err != nil {
					panic(err)
				}
				waits[i] = time.Since(t)
			}
		})
	}
	wg.Wait()
	m.wall += time.Since(start)
	m.cpu += cpuTime() - cpu
	m.waits = append(m.waits, waits...)
}

func (m *measure) rate() float64 { return float64(len(m.waits)) / m.wall.Seconds() }

func (m *measure) quantile(q float64) float64 {
	return float64(m.waits[int(q*float64(len(m.waits)-1))].Microseconds())
}

func (m *measure) report(b *testing.B, prefix string) {
	b.ReportMetric(m.rate(), prefix+"entries/s")
	b.ReportMetric(float64(m.cpu.Nanoseconds())/float64(len(m.waits)), prefix+"cpu-ns/op")
	b.ReportMetric(m.quantile(0.50), prefix+"p50-us")
	b.ReportMetric(m.quantile(0.99), prefix+"p99-us")
}

// cpuTime is what this process used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A plainLog is a file that a group commit appends to.
type plainLog struct {
	f       *os.File
	mu      sync.Mutex
	waiting []chan error
	buf     []byte
	arrived chan struct{}
}

func newPlainLog(b *testing.B) *plainLog {
	f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
	if err != nil {
		b.Fatal(err)
	}
	l := &plainLog{f: f, arrived: make(chan struct{}, 1)}
	b.Cleanup(func() { close(l.arrived); f.Close() })
	go func() {
		for range l.arrived {
			l.mu.Lock()
			waiting, buf := l.waiting, l.buf
			l.waiting, l.buf = nil, nil
			l.mu.Unlock()
			_, err := l.f.Write(buf)
			if err == nil {
				err = syscall.Fdatasync(int(l.f.Fd()))
			}
			for _, w := range waiting {
				w <- err
			}
		}
	}()
	return l
}

func (l *plainLog) append(entry []byte) error {
	done := make(chan error, 1)
	l.mu.Lock()
	l.waiting = append(l.waiting, done)
	l.buf = append(append(l.buf, entry...), '\n')
	l.mu.Unlock()
	signal(l.arrived)
	return <-done
}
