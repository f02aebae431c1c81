package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Names reads the names of the images in an archive, of the OCI's form or of
// docker's, completed as Reference completes them. An archive without any is an
// error.
func Names(r io.Reader) ([]string, error) {
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	var docker []struct {
		RepoTags []string `json:"RepoTags"`
	}
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read an image archive: %w", err)
		}
		switch header.Name {
		case "index.json":
			err = json.NewDecoder(archive).Decode(&index)
		case "manifest.json":
			err = json.NewDecoder(archive).Decode(&docker)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s of an image archive: %w", header.Name, err)
		}
	}
	var names []string
	for _, m := range index.Manifests {
		if name := m.Annotations["io.containerd.image.name"]; name != "" {
			names = append(names, Reference(name))
		}
	}
	if names == nil {
		for _, m := range docker {
			for _, tag := range m.RepoTags {
				names = append(names, Reference(tag))
			}
		}
	}
	if names == nil {
		return nil, errors.New("the archive names no image (annotation io.containerd.image.name, or docker's RepoTags)")
	}
	return names, nil
}
