package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// Report is what [Run] has measured.
type Report struct {
	At        time.Time `json:"at"`
	GoVersion string    `json:"goVersion"`
	System    string    `json:"system"`
	CPUs      int       `json:"cpus"`
	Callers   int       `json:"callers"`
	Seconds   float64   `json:"secondsPerSample"`
	Figures   []Figure  `json:"figures"`
	Tokens    *Tokens   `json:"tokens,omitempty"`
	Growth    *Growth   `json:"growth,omitempty"`
}

// Figure is one measured figure beside its ceiling. Measured and Ceiling are the
// medians of the samples, Ratio the one by the other.
type Figure struct {
	Name           string    `json:"name"`
	Title          string    `json:"title"`
	Unit           string    `json:"unit"`
	Measured       float64   `json:"measured"`
	Ceiling        float64   `json:"ceiling"`
	CeilingTitle   string    `json:"ceilingTitle"`
	Ratio          float64   `json:"ratio"`
	Aim            float64   `json:"aim"`
	Met            bool      `json:"met"`
	Samples        []float64 `json:"samples"`
	CeilingSamples []float64 `json:"ceilingSamples"`
}

func newReport(o Options) Report {
	return Report{
		At:        time.Now().UTC().Truncate(time.Second),
		GoVersion: runtime.Version(),
		System:    runtime.GOOS + "/" + runtime.GOARCH,
		CPUs:      runtime.GOMAXPROCS(0),
		Callers:   o.Callers,
		Seconds:   o.Duration.Seconds(),
	}
}

func (f *Figure) finish() {
	f.Measured, f.Ceiling = median(f.Samples), median(f.CeilingSamples)
	if f.Ceiling > 0 {
		f.Ratio = f.Measured / f.Ceiling
	}
	f.Met = f.Ratio >= f.Aim
}

func median(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s, %s, %d CPUs, %d callers, medians of samples of %gs\n\n", r.GoVersion, r.System, r.CPUs, r.Callers, r.Seconds)
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) } // into memory
	if len(r.Figures) > 0 {
		row("figure\tmeasured\tceiling\tratio\taim\t\tceiling is")
		for _, f := range r.Figures {
			verdict := "missed"
			if f.Met {
				verdict = "met"
			}
			row("%s\t%.0f %s\t%.0f\t%.2f\t%.2f\t%s\t%s", f.Title, f.Measured, f.Unit, f.Ceiling, f.Ratio, f.Aim, verdict, f.CeilingTitle)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Tokens != nil {
		row("")
		r.Tokens.write(row)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if r.Growth != nil {
		if len(r.Figures) > 0 {
			text.WriteString("\n")
		}
		if err := r.Growth.write(&text); err != nil {
			return err
		}
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
