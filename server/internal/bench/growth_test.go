package bench_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/taskbridge/taskbridge/server/internal/bench"
)

func TestTheGrowthIsMeasuredInBothStores(t *testing.T) {
	dir := t.TempDir()
	report, err := bench.Run(t.Context(), bench.Options{
		Dir: dir, Duration: 20 * time.Millisecond, Samples: 1, Tasks: 2000, Only: []string{"growth"},
		RetireFor: 5 * time.Minute, Progress: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := report.Growth
	if g == nil || len(g.Operations) != 12 || g.Small != 1000 || g.Large != 2000 {
		t.Fatalf("the growth is %+v", g)
	}
	for _, o := range g.Operations {
		if o.Small.Calls == 0 || o.Small.Calls != o.Large.Calls || o.Small.P50 <= 0 || o.Ratio != o.Large.P50/o.Small.P50 || o.Met != (o.Ratio <= o.Aim) || (o.Level == "HTTP") != (o.Aim > 0) {
			t.Errorf("the operation is %+v", o)
		}
	}
	r := g.Retention
	if !r.Complete || r.Retired != 1000 || r.Kept != 1000 || r.CreatesWith.Calls == 0 || r.CreatesWithout.Calls == 0 || r.BytesBefore == 0 || r.BytesAfter == 0 {
		t.Errorf("the retention is %+v", r)
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil || !strings.Contains(table.String(), "deletes 1000 tasks in") {
		t.Errorf("the table is %s, %v", table.String(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
}
