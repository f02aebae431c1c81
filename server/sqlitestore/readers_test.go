package sqlitestore

import "testing"

// Each connection has pages in memory that the next read of the same task, or of
// any task by way of the same index, is likely to need.
func TestTheReaderThatWasUsedLastIsUsedFirst(t *testing.T) {
	s := openTestStore(t, Options{Readers: 3})
	var taken []*conn
	for range 3 {
		c, err := s.readers.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, c)
	}
	for _, c := range taken {
		s.readers.put(c)
	}
	for i := range 3 {
		c, err := s.readers.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c != taken[2-i] {
			t.Errorf("reader %d is not the one that was given back last", i)
		}
	}
	for _, c := range taken {
		s.readers.put(c)
	}
}
