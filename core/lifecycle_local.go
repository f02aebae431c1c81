package taskbridge

import (
	"log/slog"
	"time"
)

// LifecycleOptions configures a [LocalLifecycle]. Only Stores is required.
type LifecycleOptions struct {
	Stores Stores
	Limits Limits
	// TokenDelay is how long a token may wait for others; default 50 ms.
	TokenDelay time.Duration
	Clock      Clock
	Logger     *slog.Logger
}

// LocalLifecycle records over the stores of this process.
type LocalLifecycle struct{}

// NewLocalLifecycle makes a lifecycle over the stores.
func NewLocalLifecycle(opts LifecycleOptions) (*LocalLifecycle, error) { panic("not yet") }
