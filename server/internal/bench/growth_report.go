package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Growth is how the server's operations take longer as finished tasks pile up.
type Growth struct {
	// Small and Large are how many finished tasks the two stores have.
	Small       int               `json:"small"`
	Large       int               `json:"large"`
	FillSeconds float64           `json:"fillSeconds"`
	Operations  []GrowthOperation `json:"operations"`
	Retention   Retention         `json:"retention"`
}

// GrowthOperation is one operation in both stores. The level says where it was
// measured: by a client over loopback, with the server in the same process, or at
// the store's methods. The ratio is that of the medians, and Aim what it may be,
// 0 where there is none.
type GrowthOperation struct {
	Name    string  `json:"name"`
	Level   string  `json:"level"`
	Callers int     `json:"callers"`
	Small   Times   `json:"small"`
	Large   Times   `json:"large"`
	Ratio   float64 `json:"ratio"`
	Aim     float64 `json:"aim,omitempty"`
	Met     bool    `json:"met"`
}

// Times is how long calls took, in microseconds.
type Times struct {
	Calls int     `json:"calls"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Retention is the deletion of half of the large store's tasks while creates go
// on, over HTTP at a steady rate.
type Retention struct {
	Retired int `json:"retired"`
	// Kept of the finished tasks are there afterwards.
	Kept int `json:"kept"`
	// Complete: nothing was left to be done when it ended.
	Complete       bool    `json:"complete"`
	Seconds        float64 `json:"seconds"`
	CreatesPerSec  float64 `json:"createsPerSecond"`
	CreatesWithout Times   `json:"createsWithout"`
	CreatesWith    Times   `json:"createsWith"`
	BytesBefore    int64   `json:"bytesBefore"`
	BytesAfter     int64   `json:"bytesAfter"`
}

func (g *Growth) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(t, format+"\n", args...) } // into memory
	row("median time with finished tasks\tmeasured at\t%d\t%d\tratio\taim\t", g.Small, g.Large)
	for _, o := range g.Operations {
		aim, verdict := "", ""
		if o.Aim > 0 {
			aim, verdict = fmt.Sprintf("%.2f", o.Aim), "missed"
		}
		if o.Met {
			verdict = "met"
		}
		row("%s\t%s\t%.0f µs\t%.0f µs\t%.2f\t%s\t%s", o.Name, o.Level, o.Small.P50, o.Large.P50, o.Ratio, aim, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r, more := g.Retention, ""
	if !r.Complete {
		more = fmt.Sprintf(", of %d that were due", g.Large/2)
	}
	_, err := fmt.Fprintf(w, "\nretention without a pause deletes %d tasks%s in %.0f s (%.0f/s), the file goes from %d MB to %d MB\n"+
		"creates at %.0f/s over HTTP meanwhile: p50 %.1f ms, p99 %.1f ms, at most %.0f ms; without retention %.1f, %.1f and %.0f ms\n",
		r.Retired, more, r.Seconds, float64(r.Retired)/r.Seconds, r.BytesBefore>>20, r.BytesAfter>>20, r.CreatesPerSec,
		r.CreatesWith.P50/1e3, r.CreatesWith.P99/1e3, r.CreatesWith.Max/1e3,
		r.CreatesWithout.P50/1e3, r.CreatesWithout.P99/1e3, r.CreatesWithout.Max/1e3)
	return err
}
