package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// summary is the result of the task.
type summary struct {
	Dir    string `json:"dir"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// listFiles returns the regular files below dir, as slash-separated paths that
// begin with "./", in the order of their bytes.
func listFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		files = append(files, "./"+filepath.ToSlash(relative))
		return err
	})
	// WalkDir sorts within a folder, which is another order: "a.b" comes before
	// "a/b" here and behind it there.
	slices.Sort(files)
	return files, err
}

// sumAll hashes the files and reports each percent on the way, at most 100 lines.
func sumAll(in input, files []string, out reporter) (summary, error) {
	result := summary{Dir: in.Dir, Files: len(files)}
	list := sha256.New()
	var pace <-chan time.Time
	if in.FilesPerSecond > 0 {
		ticker := time.NewTicker(max(time.Duration(float64(time.Second)/in.FilesPerSecond), 1))
		defer ticker.Stop()
		pace = ticker.C
	}
	reported := 0
	for i, file := range files {
		if pace != nil {
			<-pace
		}
		size, err := sumFile(list, in.Dir, file)
		if err != nil {
			return result, err
		}
		result.Bytes += size
		if percent := 100 * (i + 1) / len(files); percent > reported {
			reported = percent
			if err := out.progress(float64(percent), fmt.Sprintf("%d of %d files", i+1, len(files))); err != nil {
				return result, err
			}
		}
	}
	result.SHA256 = hex.EncodeToString(list.Sum(nil))
	return result, nil
}

// sumFile writes the file's line of the list.
func sumFile(list io.Writer, dir, file string) (size int64, err error) {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(file)))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read from
	sum := sha256.New()
	if size, err = io.Copy(sum, f); err != nil {
		return size, err
	}
	_, err = io.WriteString(list, listLine(sum, file))
	return size, err
}

var escapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)

// listLine is the line that sha256sum prints, which begins with a backslash
// where the name had to be escaped.
func listLine(sum hash.Hash, file string) string {
	escaped, mark := escapes.Replace(file), ""
	if escaped != file {
		mark = `\`
	}
	return fmt.Sprintf("%s%x  %s\n", mark, sum.Sum(nil), escaped)
}
