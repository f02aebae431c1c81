package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestNamesAreCompletedAsRuntimesDo(t *testing.T) {
	for name, want := range map[string]string{
		"batch":                       "docker.io/library/batch:latest",
		"batch:1":                     "docker.io/library/batch:1",
		"somebody/batch":              "docker.io/somebody/batch:latest",
		"example.test/batch":          "example.test/batch:latest",
		"localhost/batch:2":           "localhost/batch:2",
		"localhost:5000/some/batch:2": "localhost:5000/some/batch:2",
		"example.test/b@sha256:00":    "example.test/b@sha256:00",
	} {
		if got := Reference(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestAnArchiveTellsItsNameAndTheSameImageIsTheSameBytes(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!"), 0o755); err != nil {
		t.Fatal(err)
	}
	im := Image{
		Name:       "example.test/batch:1",
		Files:      []File{{Path: "/bin/batch", Host: program}, {Path: "/bin/sh", Link: "/bin/batch"}},
		Entrypoint: []string{"/bin/batch"},
	}
	var first, second bytes.Buffer
	if err := errors.Join(im.Write(&first), im.Write(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same image gives other bytes")
	}
	names, err := Names(&first)
	if err != nil || !slices.Equal(names, []string{"example.test/batch:1"}) {
		t.Errorf("the archive names %q, %v", names, err)
	}
}

func TestALayerHoldsFilesLinksAndAPlaceForTemporaryOnes(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	layer, err := Image{Files: []File{
		{Path: "/a/b/plain", Host: plain},
		{Path: "/a/run", Content: []byte("code")},
		{Path: "/bin/sh", Link: "/a/run"},
	}}.layer()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for archive := tar.NewReader(bytes.NewReader(layer)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := got[header.Name]; twice {
			t.Errorf("%s is there twice", header.Name)
		}
		got[header.Name] = header.Mode
	}
	for name, mode := range map[string]int64{
		"tmp/": 0o1777, "etc/passwd": 0o755, "a/": 0o755, "a/b/": 0o755, "a/b/plain": 0o644, "a/run": 0o755, "bin/sh": 0o777,
	} {
		if got[name] != mode {
			t.Errorf("%s has the mode %o, want %o", name, got[name], mode)
		}
	}
}

func TestWhatCanNotBeInAnImageIsRefused(t *testing.T) {
	for name, im := range map[string]Image{
		"no name":         {},
		"a relative path": {Name: "a", Files: []File{{Path: "bin/sh"}}},
		"a way out":       {Name: "a", Files: []File{{Path: "/../bin/sh"}}},
		"the root":        {Name: "a", Files: []File{{Path: "/"}}},
		"no such file":    {Name: "a", Files: []File{{Path: "/a", Host: filepath.Join(t.TempDir(), "none")}}},
		"a folder":        {Name: "a", Files: []File{{Path: "/a", Host: t.TempDir()}}},
	} {
		if err := im.Write(io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAnArchiveWithoutNamesIsRefused(t *testing.T) {
	for name, archive := range map[string]string{"nothing": "", "no archive": "this is no archive"} {
		if names, err := Names(bytes.NewReader([]byte(archive))); err == nil {
			t.Errorf("%s has the names %q", name, names)
		}
	}
}

func TestThePauseProgramIsAnExecutableOfItsArchitecture(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		program, err := pause(arch)
		if err != nil {
			t.Fatal(err)
		}
		file, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		segment := file.Progs[0]
		if file.Machine != machine || file.Type != elf.ET_EXEC || segment.Filesz != uint64(len(program)) ||
			file.Entry < segment.Vaddr || file.Entry >= segment.Vaddr+segment.Memsz {
			t.Errorf("%s: %+v %+v", arch, file.FileHeader, segment.ProgHeader)
		}
	}
	if _, err := pause("mips"); err == nil {
		t.Error("there is a program for mips, which is not known")
	}
}
