//go:build unix

package report

import (
	"io/fs"
	"os"
	"syscall"
)

// ownersAlone reports whether the folder is this user's and nobody else can use
// it. Its mode alone does not say so to root, who can use everybody's.
func ownersAlone(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid() && info.Mode().Perm() == 0o700
}
