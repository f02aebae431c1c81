package k8sjob

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

// builtImage is the image of internal/testwork, built and imported once.
var builtImage struct {
	once sync.Once
	dir  string
	name string
	err  error
}

// workImage returns the name of the image of internal/testwork, which the cluster has.
func workImage(t testing.TB) string {
	t.Helper()
	b := &builtImage
	b.once.Do(func() {
		if b.name = os.Getenv(envImage); b.name == "" {
			b.name, b.err = importWork()
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.name
}

func importWork() (name string, err error) {
	if builtImage.dir, err = os.MkdirTemp("", "testwork"); err != nil {
		return "", err
	}
	path := filepath.Join(builtImage.dir, "testwork")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./internal/testwork")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build internal/testwork: %w\n%s", err, output)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(program)
	name = "taskbridge.test/work:" + hex.EncodeToString(sum[:8])
	archive, err := imageArchive(name, "/testwork", program)
	if err != nil {
		return "", err
	}
	status, text, err := control("/images", bytes.NewReader(archive))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("import an image: %d %s", status, text)
	}
	return name, err
}

// removeImage removes what was built; the cluster keeps the image.
func removeImage() {
	if builtImage.dir != "" {
		if err := os.RemoveAll(builtImage.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// imageArchive makes an OCI image archive with one file, which is its entry point.
func imageArchive(name, path string, program []byte) ([]byte, error) {
	var layer, archive bytes.Buffer
	files := tar.NewWriter(&layer)
	err := put(files, path[1:], 0o755, program)
	if err == nil {
		err = files.Close()
	}
	if err != nil {
		return nil, err
	}
	blobs := tar.NewWriter(&archive)
	blob := func(mediaType string, content []byte) map[string]any {
		sum := sha256.Sum256(content)
		digest := hex.EncodeToString(sum[:])
		if err == nil {
			err = put(blobs, "blobs/sha256/"+digest, 0o644, content)
		}
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + digest, "size": len(content)}
	}
	object := func(value any) []byte {
		data, problem := json.Marshal(value)
		if err == nil {
			err = problem
		}
		return data
	}
	layerBlob := blob("application/vnd.oci.image.layer.v1.tar", layer.Bytes())
	config := blob("application/vnd.oci.image.config.v1+json", object(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{path}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{layerBlob["digest"]}},
	}))
	manifest := blob("application/vnd.oci.image.manifest.v1+json", object(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config, "layers": []any{layerBlob},
	}))
	manifest["annotations"] = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	index := object(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	if err == nil {
		err = put(blobs, "index.json", 0o644, index)
	}
	if err == nil {
		err = put(blobs, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	}
	if err == nil {
		err = blobs.Close()
	}
	return archive.Bytes(), err
}

func put(archive *tar.Writer, name string, mode int64, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := io.Copy(archive, bytes.NewReader(content))
	return err
}

func marshalYAML(t testing.TB, value any) []byte {
	t.Helper()
	data, err := yaml.Marshal(value)
	must(t, err)
	return data
}
