package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
)

// PauseName is the image whose container holds the namespaces of a pod.
const PauseName = "taskbridge.test/pause:1"

// Pause is the image of that name. Its program is two instructions long: it waits
// for a signal, for ever.
func Pause() (Image, error) {
	program, err := pause(runtime.GOARCH)
	if err != nil {
		return Image{}, err
	}
	return Image{
		Name:       PauseName,
		Files:      []File{{Path: "/pause", Content: program}},
		Entrypoint: []string{"/pause"},
		User:       "65532",
	}, nil
}

// pause assembles the program, an ELF file of one segment.
func pause(arch string) ([]byte, error) {
	var machine uint16
	var code []byte
	switch arch {
	case "amd64":
		machine = 62
		code = []byte{
			0xb8, 0x22, 0x00, 0x00, 0x00, // again: mov eax, 34 (pause)
			0x0f, 0x05, // syscall
			0xeb, 0xf7, // jmp again
		}
	case "arm64":
		machine = 183
		for _, instruction := range []uint32{
			0xd2800000, // again: mov x0, #0
			0xd2800001, // mov x1, #0
			0xd2800002, // mov x2, #0
			0xd2800003, // mov x3, #0
			0xd2800928, // mov x8, #73 (ppoll)
			0xd4000001, // svc #0
			0x17fffffa, // b again
		} {
			code = binary.LittleEndian.AppendUint32(code, instruction)
		}
	default:
		return nil, fmt.Errorf("no pause program for %s", arch)
	}
	const base, headers = 0x400000, 64 + 56
	size := uint64(headers + len(code))
	var elf bytes.Buffer
	elf.WriteString("\x7fELF\x02\x01\x01")
	elf.Write(make([]byte, 9))
	for _, field := range []any{
		// The file's header.
		uint16(2), machine, uint32(1), uint64(base + headers), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		// The segment: all of the file, read and executed.
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000),
	} {
		if err := binary.Write(&elf, binary.LittleEndian, field); err != nil {
			return nil, err
		}
	}
	elf.Write(code)
	return elf.Bytes(), nil
}
