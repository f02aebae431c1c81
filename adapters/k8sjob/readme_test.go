package k8sjob

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTheREADMEHasAllCodesAndOptionsAndNoOthers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	must(t, err)
	readme := string(text)

	sources, err := filepath.Glob("*.go")
	must(t, err)
	var codes []string
	for _, source := range sources {
		text, err := os.ReadFile(source)
		must(t, err)
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		for _, match := range regexp.MustCompile(`\bCode[A-Z]\w* += "(\w+)"`).FindAllSubmatch(text, -1) {
			codes = append(codes, string(match[1]))
		}
	}
	if len(codes) < 15 {
		t.Errorf("only the codes %v were found", codes)
	}
	for _, code := range codes {
		if !strings.Contains(readme, "`"+code+"`") {
			t.Errorf("README.md lacks the code %s", code)
		}
	}
	for _, code := range regexp.MustCompile(codePrefix+`\w+`).FindAllString(readme, -1) {
		if !slices.Contains(codes, code) {
			t.Errorf("README.md has the code %s, which there is not", code)
		}
	}

	for _, options := range []any{Options{}, TypeOptions{}} {
		kind := reflect.TypeOf(options)
		for i := range kind.NumField() {
			name := kind.Field(i).Name
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(readme) {
				t.Errorf("README.md lacks %s.%s", kind.Name(), name)
			}
		}
	}
}
