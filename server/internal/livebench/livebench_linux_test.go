package livebench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestMain is also the server that the measurement starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "serve" {
		events, err := strconv.Atoi(os.Args[4])
		if err == nil {
			err = Serve(context.Background(), os.Args[2], os.Args[3], events, os.Stdin, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestEveryFigureIsMeasuredBesideTheBareFanOut(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), Options{
		Dir: t.TempDir(), Server: []string{self, "serve"}, Samples: 1, Subscribers: 5, Idle: 10, Events: 5, Rate: 100, Replayed: 50, Still: 5, Long: 200,
		Progress: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Samples) != 11 || len(report.Figures) != 12 {
		t.Errorf("%d samples, %d figures", len(report.Samples), len(report.Figures))
	}
	for _, f := range report.Figures {
		if !strings.Contains(f.Title, "memory") && (f.Measured <= 0 || f.Bare <= 0) {
			t.Errorf("%+v", f)
		}
	}
	var table strings.Builder
	if err := report.WriteTable(&table); err != nil || strings.Count(table.String(), "\n") < 13 {
		t.Errorf("table %q, %v", table.String(), err)
	}
}
