package console

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// A Timeline is how many calls of each class there were in each of the hours or days
// before now, with the places of its bars in a drawing of Width by Height.
type Timeline struct {
	Width, Height int
	Most          int // calls in the busiest part
	Total         int
	Step          string // what one bar is
	Bars          []Bar
	Ticks         []Tick
	Classes       []ClassCount
	More          bool // there were more calls than were counted
}

// A Bar is the calls of one class in one part.
type Bar struct {
	X, Y, W, H int
	Look       string // of the class: its tier and a number within it, or refused
	Title      string
}

// A Tick is a mark below the bars.
type Tick struct {
	X     int
	Label string
}

// A ClassCount is a class in the legend, and the rows of the table beside the drawing.
type ClassCount struct {
	Class, Tier, Look string
	Count, Refused    int
}

// A Call is what a Timeline is drawn from.
type Call struct {
	At          time.Time
	Class, Tier string
	Refused     bool
}

// Bounds of the drawing.
const (
	barsHeight = 96
	barWidth   = 16
	barStep    = 20
	ticksRoom  = 18
)

// NewTimeline draws the calls of the last parts of a length each.
func NewTimeline(calls []Call, now time.Time, step time.Duration, parts int, more bool) Timeline {
	t := Timeline{Width: parts * barStep, Height: barsHeight + ticksRoom, Step: "hour", More: more}
	if step >= 24*time.Hour {
		t.Step = "day"
	}
	end := now.Truncate(step).Add(step)
	start := end.Add(-time.Duration(parts) * step)
	counts := make([]map[string]int, parts) // by look
	classes := map[string]*ClassCount{}
	for _, c := range calls {
		if c.At.Before(start) || !c.At.Before(end) {
			continue
		}
		class := classes[c.Class]
		if class == nil {
			class = &ClassCount{Class: c.Class, Tier: tierWord(c.Tier)}
			classes[c.Class] = class
		}
		class.Count++
		key := c.Class
		if c.Refused {
			class.Refused++
			key = "\x00" // below every class
		}
		i := int(c.At.Sub(start) / step)
		if counts[i] == nil {
			counts[i] = map[string]int{}
		}
		counts[i][key]++
		t.Total++
	}
	t.Classes = legend(classes)
	for _, of := range counts {
		sum := 0
		for _, n := range of {
			sum += n
		}
		t.Most = max(t.Most, sum)
	}
	t.draw(counts, start, step)
	return t
}

// legend orders the classes by tier, strictest last, so that the drawing has them on
// top, and gives each its look.
func legend(classes map[string]*ClassCount) []ClassCount {
	order := []string{"routine", "guarded", "irreversible", "forbidden"}
	names := slices.SortedFunc(maps.Keys(classes), func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(order, classes[a].Tier), slices.Index(order, classes[b].Tier)), cmp.Compare(a, b))
	})
	within := map[string]int{}
	var out []ClassCount
	for _, name := range names {
		c := classes[name]
		c.Look = c.Tier + "-" + string(rune('0'+min(within[c.Tier], 2)))
		within[c.Tier]++
		out = append(out, *c)
	}
	return out
}

func (t *Timeline) draw(counts []map[string]int, start time.Time, step time.Duration) {
	for i, of := range counts {
		at := start.Add(time.Duration(i) * step)
		x, y := i*barStep+(barStep-barWidth)/2, barsHeight
		put := func(look, class string, n int) {
			if n == 0 {
				return
			}
			h := max(2, n*(barsHeight-8)/t.Most)
			y -= h
			t.Bars = append(t.Bars, Bar{x, y, barWidth, h, look, at.UTC().Format("2 Jan 15:04") + ": " + plural(n, class+" call", class+" calls")})
		}
		put("refused", "refused", of["\x00"])
		for _, c := range t.Classes {
			put(c.Look, c.Class, of[c.Class])
		}
		if t.Step == "hour" && at.UTC().Hour()%6 == 0 {
			t.Ticks = append(t.Ticks, Tick{i * barStep, at.UTC().Format("15:04")})
		} else if t.Step == "day" && i%7 == 0 {
			t.Ticks = append(t.Ticks, Tick{i * barStep, at.UTC().Format("2 Jan")})
		}
	}
}
