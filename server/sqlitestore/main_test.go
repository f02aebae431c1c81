package sqlitestore_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDir) != "" {
		os.Exit(runCrashChild())
	}
	goleak.VerifyTestMain(m)
}
