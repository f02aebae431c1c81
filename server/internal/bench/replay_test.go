package bench

import (
	"bytes"
	"net/http/httptest"
	"testing"
)

func TestTheCeilingOfTheReplayWritesTheSameBytes(t *testing.T) {
	opts, err := Options{Dir: t.TempDir(), Events: 700}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	measured, ceiling, err := prepareReplay(t.Context(), opts, opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, taskID := range measured.(*replay).taskIDs {
		var bodies [2][]byte
		for i, s := range []sampler{measured, ceiling} {
			recorder := httptest.NewRecorder()
			request := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1/api/v1/tasks/"+taskID+"/events/stream", nil)
			s.(*replay).handler.ServeHTTP(recorder, request)
			bodies[i] = bytes.ReplaceAll(recorder.Body.Bytes(), []byte(": ping\n\n"), nil)
		}
		if n := bytes.Count(bodies[0], []byte("\n\n")); n != 700 || !bytes.Equal(bodies[0], bodies[1]) {
			t.Errorf("the streams have %d and %d bytes, %d events; want the same 700 events", len(bodies[0]), len(bodies[1]), n)
		}
	}
	for _, s := range []sampler{measured, ceiling} {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}
