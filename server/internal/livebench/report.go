package livebench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what [Run] has measured.
type Report struct {
	At          time.Time `json:"at"`
	GoVersion   string    `json:"goVersion"`
	System      string    `json:"system"`
	CPUs        int       `json:"cpus"`
	LoadAverage string    `json:"loadAverage"` // of the machine when the run began
	LoadAtEnd   string    `json:"loadAtEnd"`
	Subscribers int       `json:"subscribers"`
	Idle        int       `json:"idleSubscribers"`
	EventsRate  int       `json:"eventsPerSecond"`
	Replayed    int       `json:"replayedEvents"`
	Still       int       `json:"standingStill"`
	Long        int       `json:"longReplayEvents"`
	Figures     []Figure  `json:"figures"`
	Samples     []Sample  `json:"samples"`
}

// Sample is one measurement. Latencies are in milliseconds, from the call that
// appends, and so are the appends themselves, which are part of them. CPU is the
// server's time for a delivery in microseconds, appends and all. Rate is deliveries
// a second, Bytes is the growth of the server's resident memory for a subscriber.
type Sample struct {
	Figure    string  `json:"figure"`
	Kind      string  `json:"kind"` // bare, sse or websocket; alone or beside
	Seconds   float64 `json:"seconds"`
	P50       float64 `json:"p50,omitempty"`
	P99       float64 `json:"p99,omitempty"`
	Max       float64 `json:"max,omitempty"`
	AppendP50 float64 `json:"appendP50,omitempty"`
	AppendP99 float64 `json:"appendP99,omitempty"`
	CPU       float64 `json:"cpuMicros,omitempty"`
	Rate      float64 `json:"rate,omitempty"`
	Bytes     float64 `json:"bytes,omitempty"`
	Replays   int     `json:"replays,omitempty"` // of the long stream meanwhile, to its end
}

// String says what was measured, for the progress.
func (s Sample) String() string {
	switch s.Figure {
	case "beside":
		return fmt.Sprintf("%s: p50 %.2f ms, p99 %.2f ms, max %.2f ms, meanwhile %d replays", s.Kind, s.P50, s.P99, s.Max, s.Replays)
	case "latency":
		return fmt.Sprintf("%s: p50 %.2f ms, p99 %.2f ms, max %.2f ms; of that the append p50 %.2f ms, p99 %.2f ms; %.1f us of CPU a delivery, %.0f deliveries/s",
			s.Kind, s.P50, s.P99, s.Max, s.AppendP50, s.AppendP99, s.CPU, s.Rate)
	case "replay":
		return fmt.Sprintf("%s: %.0f deliveries/s", s.Kind, s.Rate)
	}
	return fmt.Sprintf("%s: %.0f bytes a subscriber", s.Kind, s.Bytes)
}

// Figure is a measured figure, the median of its samples, beside the same of the
// bare fan-out or, where its title says so, of our own server that is left alone.
type Figure struct {
	Title    string  `json:"title"`
	Unit     string  `json:"unit"`
	Measured float64 `json:"measured"`
	Bare     float64 `json:"bare"`
	Aim      string  `json:"aim"`
	Met      bool    `json:"met"`
}

func newReport(o Options) Report {
	return Report{
		At: time.Now().UTC().Truncate(time.Second), GoVersion: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs: runtime.GOMAXPROCS(0), LoadAverage: loadAverage(), Subscribers: o.Subscribers, Idle: o.Idle,
		EventsRate: o.Rate, Replayed: o.Replayed, Still: o.Still, Long: o.Long,
	}
}

// loadAverage is the machine's, over 1, 5 and 15 minutes.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

// median returns that of a figure's samples; none: there are no samples.
func (r *Report) median(figure, kind string, value func(Sample) float64) (median float64, none bool) {
	var values []float64
	for _, s := range r.Samples {
		if s.Figure == figure && s.Kind == kind {
			values = append(values, value(s))
		}
	}
	slices.Sort(values)
	n := len(values)
	switch {
	case n == 0:
		return 0, true
	case n%2 == 1:
		return values[n/2], false
	}
	return (values[n/2-1] + values[n/2]) / 2, false
}

func (r *Report) finish() {
	r.LoadAtEnd = loadAverage()
	add := func(figure, kind, title, unit string, value func(Sample) float64, aim string, met func(measured, bare float64) bool) {
		measured, none := r.median(figure, kind, value)
		bare, _ := r.median(figure, "bare", value)
		if !none {
			r.Figures = append(r.Figures, Figure{title, unit, measured, bare, aim, met(measured, bare)})
		}
	}
	for _, t := range []struct {
		kind, title string
		kilobytes   float64
	}{{"sse", "SSE", 20}, {"websocket", "WebSocket", 16}} {
		add("latency", t.kind, "append to client, p50, "+t.title, "ms", func(s Sample) float64 { return s.P50 }, "none", func(_, _ float64) bool { return true })
		add("latency", t.kind, "append to client, p99, "+t.title, "ms", func(s Sample) float64 { return s.P99 }, "bare + 5 ms",
			func(measured, bare float64) bool { return measured <= bare+5 })
		add("latency", t.kind, "server's CPU time a delivery, "+t.title, "us", func(s Sample) float64 { return s.CPU }, "none", func(_, _ float64) bool { return true })
		add("replay", t.kind, "replay, "+t.title, "deliveries/s", func(s Sample) float64 { return s.Rate }, "0.5 of bare",
			func(measured, bare float64) bool { return measured >= bare/2 })
		add("memory", t.kind, "memory of an idle subscriber, "+t.title, "bytes", func(s Sample) float64 { return s.Bytes },
			fmt.Sprintf("%.0f kB", t.kilobytes), func(measured, _ float64) bool { return measured <= t.kilobytes*1000 })
	}
	for _, part := range []struct {
		title string
		value func(Sample) float64
	}{{"p50", func(s Sample) float64 { return s.P50 }}, {"p99", func(s Sample) float64 { return s.P99 }}} {
		beside, none := r.median("beside", "beside", part.value)
		alone, _ := r.median("beside", "alone", part.value)
		if !none {
			title := fmt.Sprintf("append to client, %s, SSE, beside a replay of %d events and %d who read nothing, against alone", part.title, r.Long, r.Still)
			r.Figures = append(r.Figures, Figure{title, "ms", beside, alone, "none", true})
		}
	}
}

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s, %s, %d CPUs, load %s at the start and %s at the end\n", r.GoVersion, r.System, r.CPUs, r.LoadAverage, r.LoadAtEnd)
	fmt.Fprintf(&text, "%d subscribers, %d events/s live, %d events replayed, %d idle; medians; clients on the same machine\n\n",
		r.Subscribers, r.EventsRate, r.Replayed, r.Idle)
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) } // into memory
	row("figure\tmeasured\tbare fan-out\taim\t")
	for _, f := range r.Figures {
		verdict := "missed"
		if f.Met {
			verdict = "met"
		}
		if f.Aim == "none" {
			verdict = ""
		}
		row("%s\t%.4g %s\t%.4g\t%s\t%s", f.Title, f.Measured, f.Unit, f.Bare, f.Aim, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := w.Write(text.Bytes())
	return err
}

// WriteJSON writes the report to the file, whose folder is made where it is
// missing.
func (r Report) WriteJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
