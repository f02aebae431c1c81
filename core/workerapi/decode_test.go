package workerapi

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzUnmarshal: what is taken is an object whose members are known to the letter
// and there once, which package json is asked about in its own way.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"type":"token","text":"a"}`, ` { "type" : "progress" , "progress" : 1.5 } `, `{"type":"fail","code":"C","retryable":true}`,
		`{"type":"complete","result":{"type":[{"a":"}"},"\\\"",1]},"message":"]"}`, `{"type":1}`, `{"Type":"token"}`, `{"type":"a","type":"b"}`,
		`null`, `[]`, `"type"`, ``, `{`, `{"type":"a"}{}`, `{"t\u0079pe":"a"}`, `{"":1}`, `{"text":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var report Report
		got := unmarshal(data, reportNames, &report) == nil
		if want := json.Unmarshal(data, new(Report)) == nil && exact(data); got != want {
			t.Errorf("%q: taken %v, want %v", data, got, want)
		}
	})
}

// exact does slowly what names.check does.
func exact(data []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return false
	}
	seen := map[string]bool{}
	for decoder.More() {
		begin := decoder.InputOffset()
		name, err := decoder.Token()
		text, ok := name.(string)
		// A name that is written with escapes is not written to the letter.
		raw := strings.TrimLeft(string(data[begin:decoder.InputOffset()]), " \t\r\n,")
		if err != nil || !ok || raw != `"`+text+`"` || reportNames[text] == 0 || seen[text] {
			return false
		}
		seen[text] = true
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return false
		}
	}
	return true
}
