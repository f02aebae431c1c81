// Package image writes container images of one layer round static binaries, as OCI
// image archives, and reads the names of those that others wrote.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// Image says what is in an image.
type Image struct {
	// Name is what pods call it, as in "example.test/batch:1". It is completed as
	// Reference completes it.
	Name string
	// Files are put into the image with mode 0755 where their owner may execute
	// them and 0644 otherwise. Folders on the way are made.
	Files []File
	// Entrypoint is the command.
	Entrypoint []string
	// Env are variables as NAME=value.
	Env []string
	// User is the user, and group, that the command runs as: a number. Empty: root.
	User string
}

// File is one file of an image.
type File struct {
	// Path is where it is in the image, absolute.
	Path string
	// Host is the file on the host that it is a copy of.
	Host string
	// Content is used where Host is empty; it may be executed.
	Content []byte
	// Link is what the file is a symbolic link to; neither Host nor Content is used.
	Link string
}

// nonroot is the user that every image knows beside root.
const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n" //nolint:gosec // it has no passwords
	group  = "root:x:0:\nnonroot:x:65532:\n"
)

// Reference completes a name as container runtimes do: "batch" is
// "docker.io/library/batch:latest".
func Reference(name string) string {
	first, _, slash := strings.Cut(name, "/")
	switch {
	case !slash:
		name = "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		name = "docker.io/" + name
	}
	if last := path.Base(name); !strings.ContainsAny(last, ":@") {
		name += ":latest"
	}
	return name
}

// descriptor points at a blob of the archive.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write writes the image's archive. The same image gives the same bytes.
func (i Image) Write(w io.Writer) error {
	if i.Name == "" {
		return fmt.Errorf("image without a name")
	}
	layer, err := i.layer()
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	blob := func(mediaType string, content []byte) (descriptor, error) {
		sum := sha256.Sum256(content)
		name := hex.EncodeToString(sum[:])
		return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: len(content)},
			put(archive, "blobs/sha256/"+name, 0o644, content)
	}
	layerBlob, err := blob("application/vnd.oci.image.layer.v1.tar", layer)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": i.Entrypoint, "Env": i.Env, "User": i.User, "WorkingDir": "/"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	})
	if err != nil {
		return err
	}
	configBlob, err := blob("application/vnd.oci.image.config.v1+json", config)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        configBlob,
		"layers":        []descriptor{layerBlob},
	})
	if err != nil {
		return err
	}
	manifestBlob, err := blob("application/vnd.oci.image.manifest.v1+json", manifest)
	if err != nil {
		return err
	}
	manifestBlob.Annotations = map[string]string{
		"io.containerd.image.name":          Reference(i.Name),
		"org.opencontainers.image.ref.name": Reference(i.Name),
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifestBlob}})
	if err != nil {
		return err
	}
	if err := put(archive, "index.json", 0o644, index); err != nil {
		return err
	}
	if err := put(archive, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return archive.Close()
}

// layer is the image's one layer.
func (i Image) layer() ([]byte, error) {
	files := append([]File{
		{Path: "/etc/passwd", Content: []byte(passwd)},
		{Path: "/etc/group", Content: []byte(group)},
	}, i.Files...)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })

	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	made := map[string]bool{"/": true, "/tmp": true}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return nil, err
	}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("%q is no absolute path of a file in an image", f.Path)
		}
		if err := folders(archive, path.Dir(f.Path), made); err != nil {
			return nil, err
		}
		if f.Link != "" {
			link := tar.Header{Typeflag: tar.TypeSymlink, Name: f.Path[1:], Linkname: f.Link, Mode: 0o777}
			if err := archive.WriteHeader(&link); err != nil {
				return nil, err
			}
			continue
		}
		content, mode, err := f.read()
		if err != nil {
			return nil, err
		}
		if err := put(archive, f.Path[1:], mode, content); err != nil {
			return nil, err
		}
	}
	return layer.Bytes(), archive.Close()
}

// read is what the file holds, and its mode in the image.
func (f File) read() ([]byte, int64, error) {
	if f.Host == "" {
		return f.Content, 0o755, nil
	}
	info, err := os.Stat(f.Host)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, &fs.PathError{Op: "put into an image", Path: f.Host, Err: fs.ErrInvalid}
	}
	content, err := os.ReadFile(f.Host)
	if info.Mode()&0o100 != 0 {
		return content, 0o755, err
	}
	return content, 0o644, err
}

// folders makes dir and what is above it, once each.
func folders(archive *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := folders(archive, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755})
}

func put(archive *tar.Writer, name string, mode int64, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
