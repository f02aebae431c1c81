package podlog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// clocks are how the timestamps of a log may go.
var clocks = map[string]func(random *rand.Rand) func(i int) time.Duration{
	"nanoseconds": func(random *rand.Rand) func(int) time.Duration {
		return func(int) time.Duration { return time.Duration(1 + random.Int64N(int64(3*time.Millisecond))) }
	},
	"coarse": func(random *rand.Rand) func(int) time.Duration {
		return func(int) time.Duration { return time.Duration(random.IntN(2)) * time.Millisecond }
	},
	"two streams side by side": func(random *rand.Rand) func(int) time.Duration {
		return func(int) time.Duration {
			return time.Duration(random.Int64N(int64(2*time.Millisecond)) - int64(200*time.Microsecond))
		}
	},
	"slow": func(random *rand.Rand) func(int) time.Duration {
		return func(int) time.Duration { return time.Duration(random.Int64N(int64(4 * time.Second))) }
	},
	"set back once": func(random *rand.Rand) func(int) time.Duration {
		at := random.IntN(5000)
		return func(i int) time.Duration {
			if i == at {
				return -900 * time.Millisecond
			}
			return time.Millisecond
		}
	},
}

// anything lets any fault happen, now and then.
func anything(random *rand.Rand) fault {
	if random.IntN(5) > 0 {
		return none
	}
	return fault(1 + random.IntN(int(restarts)))
}

func TestEachLineComesOnceAndInOrderHoweverTheConnectionIsCut(t *testing.T) {
	t.Parallel()
	for name, clock := range clocks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(30) {
				entries := progress(5000, clock(rand.New(rand.NewPCG(seed, 2))))
				n := newNode(t, seed, entries)
				n.fault, n.lag = anything, 3
				lines, end := read(t, n, Options{})
				if !end.Complete || end.Lost || len(lines) != len(entries) {
					t.Fatalf("seed %d: %d lines, %+v", seed, len(lines), end)
				}
				calm := newNode(t, seed, entries)
				again, _ := read(t, calm, Options{})
				for i, l := range lines {
					if string(l.Text) != entries[i].text || !l.Time.Equal(entries[i].at) || l.Lost {
						t.Fatalf("seed %d: line %d is %+v, want %+v", seed, i, l, entries[i])
					}
					if i > 0 && l.Ordinal <= lines[i-1].Ordinal || l.Ordinal != again[i].Ordinal {
						t.Fatalf("seed %d: line %d has the ordinal %d after %d, and %d without cuts", seed, i, l.Ordinal, lines[i-1].Ordinal, again[i].Ordinal)
					}
				}
			}
		})
	}
}

// Whatever is missing is told, nothing comes twice, and who reads what rotation has
// left gives the lines the same ordinals.
func TestWhatRotationTookWhileNothingWasReadIsTold(t *testing.T) {
	t.Parallel()
	told := 0
	for seed := range uint64(40) {
		entries := progress(5000, clocks["nanoseconds"](rand.New(rand.NewPCG(seed, 2))))
		n := newNode(t, seed, entries)
		n.fault = anything
		n.rotate = func(random *rand.Rand) bool { return random.IntN(4) == 0 }
		lines, end := read(t, n, Options{})
		if !end.Complete {
			t.Fatalf("seed %d: %+v", seed, end)
		}
		places := map[string]int{}
		for i, e := range entries {
			places[e.text] = i
		}
		next, lost := 0, false
		for _, l := range lines {
			at := places[string(l.Text)]
			switch {
			case at < next:
				t.Fatalf("seed %d: line %d comes after line %d", seed, at, next-1)
			case at > next && !l.Lost && next > 0: // the first lines may be gone before Follow reads
				t.Fatalf("seed %d: lines %d to %d are missing, and nothing is said", seed, next, at-1)
			}
			next, lost = at+1, lost || l.Lost
		}
		if next < len(entries) && !end.Lost || lost && !end.Lost {
			t.Fatalf("seed %d: read to line %d, lost %v, %+v", seed, next, lost, end)
		}
		if lost {
			told++
		}
		late, _ := read(t, n, Options{}) // another process, of the last file
		ordinals := map[string]int64{}
		for _, l := range lines {
			ordinals[string(l.Text)] = l.Ordinal
		}
		for _, l := range late {
			if known, ok := ordinals[string(l.Text)]; ok && known != l.Ordinal {
				t.Fatalf("seed %d: %s has the ordinal %d, and %d for another reader", seed, l.Text, known, l.Ordinal)
			}
		}
	}
	if told == 0 {
		t.Error("no seed lost anything: the test shows nothing")
	}
}

func TestAQuietLogIsAskedForAgainAndNotRepeated(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(1, func(int) time.Duration { return 0 }))
	n.written, n.lag = 1, 50
	lines, end := read(t, n, Options{})
	if len(lines) != 1 || !end.Complete || end.Lost {
		t.Errorf("%d lines, %+v", len(lines), end)
	}
}

func TestAnOrdinaryEndTakesTwoRequestsForTheLogAndOneForThePod(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(1000, func(int) time.Duration { return time.Millisecond }))
	read(t, n, Options{})
	if n.asked != 2 || n.looked != 1 {
		t.Errorf("%d requests for the log and %d for the pod", n.asked, n.looked)
	}
}

func TestASilentContainerEnds(t *testing.T) {
	t.Parallel()
	if lines, end := read(t, newNode(t, 1, nil), Options{}); len(lines) != 0 || !end.Complete || end.Lost {
		t.Errorf("%d lines, %+v", len(lines), end)
	}
}

func TestWhatFollowsTheLastLineEndIsALine(t *testing.T) {
	t.Parallel()
	n := newNode(t, 1, progress(10, func(int) time.Duration { return time.Millisecond }))
	n.remnant = created.Add(time.Minute).Format(time.RFC3339Nano) + " the end"
	lines, end := read(t, n, Options{})
	if last := lines[len(lines)-1]; len(lines) != 11 || string(last.Text) != "the end" || last.Ordinal <= lines[9].Ordinal || !end.Complete {
		t.Errorf("%d lines, the last is %+v, %+v", len(lines), last, end)
	}
}

func TestLongAndStrangeLinesAreBounded(t *testing.T) {
	t.Parallel()
	texts := []string{"", "\r", "a\r", "\x00\x01", "\xff\xfe", string(make([]byte, 3<<20)), "last"}
	var entries []entry
	for i, text := range texts {
		entries = append(entries, entry{created.Add(time.Duration(i) * time.Second), text})
	}
	n := newNode(t, 1, entries)
	n.fault = anything
	lines, _ := read(t, n, Options{MaxLine: 1000})
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprintf("%d %d %.2q", l.Size, len(l.Text), l.Text))
	}
	want := []string{`0 0 ""`, `0 0 ""`, `1 1 "a"`, `2 2 "\x00\x01"`, `2 2 "\xff\xfe"`, `3145728 1000 "\x00\x00"`, `4 4 "la"`}
	if !slices.Equal(got, want) {
		t.Errorf("the lines are %q, want %q", got, want)
	}
}
