//go:build !unix

package report

import "io/fs"

// ownersAlone: the folder for temporary files is each user's own here.
func ownersAlone(fs.FileInfo) bool { return true }
