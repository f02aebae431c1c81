package sqlitestore

import "testing"

func TestTheCacheForgetsWhatWasNotUsedLongest(t *testing.T) {
	c := newCache[int](2)
	c.put("a", 1)
	c.put("b", 2)
	if v, ok := c.get("a"); !ok || v != 1 {
		t.Error("a was forgotten")
	}
	c.put("c", 3)
	c.put("a", 4) // in the place of what was there
	for id, want := range map[string]int{"a": 4, "b": 0, "c": 3} {
		if v, ok := c.get(id); v != want || ok != (want != 0) {
			t.Errorf("%s is %d, %v; want %d", id, v, ok, want)
		}
	}
	c.remove("c")
	c.remove("no such")
	if _, ok := c.get("c"); ok || len(c.byTask) != 1 || c.recent.Len() != 1 {
		t.Error("c is there after its removal")
	}
	if c.clear(); len(c.byTask) != 0 || c.recent.Len() != 0 {
		t.Error("something is left after clear")
	}
}
