package auth

import (
	"context"
	"log/slog"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// keySource supplies the keys that tokens are checked with.
type keySource interface {
	// ask calls judge with the present set of keys, and where that leaves it
	// undecided once more with a newer one, if there may be one. The error
	// matches ErrUnavailable: there are no keys, or not the newest, and they
	// cannot be had now.
	ask(ctx context.Context, judge func(keySet) verdict) (verdict, error)
	close()
}

// fileKeys are the keys of a file.
type fileKeys struct{ file *watched[keySet] }

func openFileKeys(path string, reload, stale time.Duration, clock taskbridge.Clock, logger *slog.Logger) (*fileKeys, error) {
	file, err := watch(watchOptions[keySet]{
		path: path, what: "file of JSON Web Keys", decode: decodeKeySet,
		reload: reload, stale: stale, clock: clock, logger: logger,
	})
	if err != nil {
		return nil, err
	}
	return &fileKeys{file}, nil
}

func (k *fileKeys) ask(_ context.Context, judge func(keySet) verdict) (verdict, error) {
	set, err := k.file.get()
	if err != nil {
		return undecided, err
	}
	return judge(set), nil
}

func (k *fileKeys) close() { k.file.close() }
