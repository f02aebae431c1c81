package k8sjob

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

func TestNamesKeepTheRulesOfDNSAndLeaveRoomForAPods(t *testing.T) {
	t.Parallel()
	ids := []string{"000-a", strings.Repeat("x", 255), "3ff-Ab.c_d~e", taskbridge.NewTaskID("owner", "key")}
	for _, instance := range []string{"a", "taskbridge", "a-very-long-name-20b", "0-9"} {
		must(t, checkInstance(instance))
		seen := map[string]string{}
		for _, id := range ids {
			name := jobName(instance, id)
			handed := newHandoverName(name)
			for what, checked := range map[string]string{"Job": name, "Secret": handed, "pod": name + "-abcde"} {
				if problems := validation.IsDNS1123Label(checked); len(problems) > 0 {
					t.Errorf("the %s's name %q: %v", what, checked, problems)
				}
			}
			if len(name) > 57 {
				t.Errorf("%q has %d bytes", name, len(name))
			}
			if other, taken := seen[name]; taken {
				t.Errorf("%q and %q have the same name", other, id)
			}
			seen[name] = id
			if name != jobName(instance, id) {
				t.Error("a name differs from one time to the next")
			}
			if problems := validation.IsValidLabelValue(hashOf(id)); len(problems) > 0 {
				t.Errorf("the hash %q as a label: %v", hashOf(id), problems)
			}
		}
	}
	if a, b := newHandoverName("a"), newHandoverName("a"); a == b {
		t.Errorf("two Jobs of a name share what they own: %q", a)
	}
}

func TestAnInstancesNameIsShortAndMadeForNames(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", strings.Repeat("a", 21), "a\n"} {
		if err := checkInstance(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestAnyTextBecomesALabelsValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"thumbnails":                   "thumbnails",
		"Video/Encode v2":              "Video-Encode-v2",
		"-.a.-":                        "a",
		"雪":                            "",
		"a雪b":                          "a-b",
		strings.Repeat("x", 255):       strings.Repeat("x", 63),
		strings.Repeat("y", 62) + "/z": strings.Repeat("y", 62),
		"$(HOME)\x00\xff":              "HOME",
	} {
		got := labelValue(text)
		if got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
		if problems := validation.IsValidLabelValue(got); len(problems) > 0 {
			t.Errorf("%q: %v", got, problems)
		}
	}
}
