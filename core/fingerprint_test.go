package taskbridge

import (
	"encoding/json"
	"errors"
	"math/big"
	"testing"
)

func TestFingerprintComparesInputAsJSON(t *testing.T) {
	fingerprint := func(taskType, input string, digests ...string) string {
		t.Helper()
		f, err := Fingerprint(taskType, json.RawMessage(input), digests)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	same := [][]string{
		{`{}`, ` { } `},
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`, "{\n\"b\" : 2.0, \"a\" : 10e-1}", `{"a":0.1e1,"b":200e-2}`},
		{`{"a":0}`, `{"a":-0}`, `{"a":0.000}`, `{"a":0e99}`, `{"a":-0.0E-7}`},
		{`{"a":1e400}`, `{"a":10e399}`, `{"a":0.1e401}`},
		{`{"a":123456789012345678901234567890}`, `{"a":12345678901234567890123456789.0e1}`},
		{`{"a":1e99999999999999999999}`, `{"a":10e99999999999999999998}`},
		{`{"a":"é"}`, `{"a":"\u00e9"}`},
		{`{"a":[1,{"x":null}]}`, `{"a":[1.0,{"x":null}]}`},
	}
	seen := map[string]string{}
	for _, group := range same {
		first := fingerprint("t", group[0])
		for _, other := range group[1:] {
			if fingerprint("t", other) != first {
				t.Errorf("%s and %s differ", group[0], other)
			}
		}
		if clash, there := seen[first]; there {
			t.Errorf("%s and %s are the same", group[0], clash)
		}
		seen[first] = group[0]
	}
	for _, different := range []string{
		`{"a":1}`, `{"a":"1"}`, `{"a":true}`, `{"a":null}`, `{"a":[]}`, `{"a":{}}`, `{"a":[1,2]}`, `{"a":[2,1]}`, `{"a":[[1],2]}`,
		`{"a":[1,[2]]}`, `{"a":123456789012345678901234567891}`, `{"a":-1}`, `{"a":0.1}`, `{"a":10}`, `{"A":1}`, `{"a,b":1}`, `{"a":",\"b\":1"}`,
	} {
		f := fingerprint("t", different)
		if clash, there := seen[f]; there {
			t.Errorf("%s and %s are the same", different, clash)
		}
		seen[f] = different
	}
	base := fingerprint("t", `{}`)
	for name, f := range map[string]string{
		"type":             fingerprint("u", `{}`),
		"attachment":       fingerprint("t", `{}`, "x"),
		"two attachments":  fingerprint("t", `{}`, "x", "y"),
		"other boundaries": fingerprint("t", `{}`, "xy"),
	} {
		if f == base || seen[f] != "" {
			t.Errorf("another %s does not count", name)
		}
		seen[f] = name
	}
	if _, err := Fingerprint("t", json.RawMessage(`{} {}`), nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("two values: %v", err)
	}
}

func FuzzNumbersAreComparedByValue(f *testing.F) {
	for _, seed := range [][2]string{{"1", "1.0"}, {"10e-1", "1"}, {"0.5", "5e-1"}, {"1e3", "1000"}, {"-0", "0"}, {"12.30", "1.23e+01"}, {"1e0005", "100000"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 20 || len(b) > 20 || !json.Valid([]byte(a)) || !json.Valid([]byte(b)) {
			return
		}
		x, okX := new(big.Rat).SetString(a)
		y, okY := new(big.Rat).SetString(b)
		if !okX || !okY || a[0] == '"' || b[0] == '"' {
			return
		}
		same := string(appendNumber(nil, a)) == string(appendNumber(nil, b))
		if want := x.Cmp(y) == 0; same != want {
			t.Fatalf("%s and %s: same %v, want %v (%s, %s)", a, b, same, want, appendNumber(nil, a), appendNumber(nil, b))
		}
	})
}
