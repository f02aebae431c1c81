package telemetry

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// readyTimeout bounds the checks of one scrape.
const readyTimeout = 2 * time.Second

// readiness asks, when it is scraped, what /ready asks: a gauge that somebody has
// to remember to set tells of the last time that somebody did.
type readiness struct {
	checks map[string]func(context.Context) error
}

var readyDesc = prometheus.NewDesc(namespace+"_ready", "Whether a part of the server can be used (1) or not (0), asked at the scrape.", []string{"part"}, nil)

func (r *readiness) Describe(descs chan<- *prometheus.Desc) { descs <- readyDesc }

func (r *readiness) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	var checks sync.WaitGroup
	for part, check := range r.checks {
		checks.Go(func() {
			value := 1.0
			if check(ctx) != nil { // why is what /ready logs
				value = 0
			}
			metrics <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, value, part)
		})
	}
	checks.Wait()
}

// storeFiles reports sizes, looked up when it is scraped.
type storeFiles struct {
	paths map[string]string
}

var storeFileDesc = prometheus.NewDesc(namespace+"_store_file_bytes", "Size of a file of the store, 0 where it is missing.", []string{"file"}, nil)

func (s *storeFiles) Describe(descs chan<- *prometheus.Desc) { descs <- storeFileDesc }

func (s *storeFiles) Collect(metrics chan<- prometheus.Metric) {
	for name, path := range s.paths {
		var size float64
		if info, err := os.Stat(path); err == nil {
			size = float64(info.Size())
		}
		metrics <- prometheus.MustNewConstMetric(storeFileDesc, prometheus.GaugeValue, size, name)
	}
}
