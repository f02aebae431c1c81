package memory_test

import (
	"errors"
	"testing"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
	"github.com/taskbridge/taskbridge/core/memory"
)

func TestALeaseWithoutNameHolderOrLengthIsRefused(t *testing.T) {
	leaser := memory.NewLeaser(nil)
	for _, c := range []struct {
		name, holder string
		ttl          time.Duration
	}{{"", "holder", time.Second}, {"name", "", time.Second}, {"name", "holder", 0}, {"name", "holder", -1}} {
		if held, err := leaser.AcquireLease(t.Context(), c.name, c.holder, c.ttl); held || !errors.Is(err, taskbridge.ErrInvalidArgument) {
			t.Errorf("AcquireLease(%q, %q, %v) = %v, %v", c.name, c.holder, c.ttl, held, err)
		}
	}
}
