package taskbridge

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// Fingerprint identifies a request's content under its key: the task type, the
// input compared as JSON (members in any order, numbers by value), and the
// attachments' digests. Metadata does not count. The error is an
// [*ArgumentError]: the input is no JSON.
func Fingerprint(taskType string, input json.RawMessage, attachmentDigests []string) (string, error) {
	decoder := json.NewDecoder(bytes.NewReader(input))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return "", argumentErrorf("input", "must be JSON: %v", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return "", argumentErrorf("input", "must be one JSON value")
	}
	h := sha256.New()
	part := func(data []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(data)))
		h.Write(size[:])
		h.Write(data)
	}
	part([]byte(taskType))
	part(appendCanonical(nil, value))
	for _, digest := range attachmentDigests {
		part([]byte(digest))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// appendCanonical writes equal JSON values as equal bytes.
func appendCanonical(dst []byte, value any) []byte {
	switch v := value.(type) {
	case map[string]any:
		dst = append(dst, '{')
		for _, key := range slices.Sorted(maps.Keys(v)) {
			dst = strconv.AppendQuote(dst, key)
			dst = append(dst, ':')
			dst = appendCanonical(dst, v[key])
			dst = append(dst, ',')
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for _, element := range v {
			dst = appendCanonical(dst, element)
			dst = append(dst, ',')
		}
		return append(dst, ']')
	case string:
		return strconv.AppendQuote(dst, v)
	case json.Number:
		return appendNumber(dst, string(v))
	case bool:
		return strconv.AppendBool(dst, v)
	}
	return append(dst, "null"...)
}

// appendNumber writes a JSON number by its value: its significant digits and a
// power of ten, whatever its size, so that 1, 1.0 and 10e-1 are the same.
func appendNumber(dst []byte, number string) []byte {
	number, negative := strings.CutPrefix(number, "-")
	mantissa, exponent := number, ""
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		mantissa, exponent = number[:i], strings.TrimPrefix(number[i+1:], "+")
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	shift := int64(-len(fraction))
	significant := strings.TrimRight(digits, "0")
	shift += int64(len(digits) - len(significant))
	if significant == "" {
		return append(dst, '0')
	}
	if negative {
		dst = append(dst, '-')
	}
	dst = append(dst, significant...)
	dst = append(dst, 'e')
	if len(exponent) <= 15 {
		e, _ := strconv.ParseInt(exponent, 10, 64) // the decoder has checked the digits; none is 0
		return strconv.AppendInt(dst, e+shift, 10)
	}
	e, _ := new(big.Int).SetString(exponent, 10)
	return e.Add(e, big.NewInt(shift)).Append(dst, 10)
}
