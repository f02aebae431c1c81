package memory

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	taskbridge "github.com/taskbridge/taskbridge/core"
)

// row is a stored task with its places in the due indexes.
type row struct {
	task taskbridge.Task
	// duePlace is the row's index in the heap of each kind, -1 where it is in none.
	duePlace []int
}

// ageIndex holds rows in ascending order of creation. Rows come in nearly that
// order, so that an insertion moves few others.
type ageIndex struct{ rows []*row }

func (x *ageIndex) insert(r *row) {
	at, _ := slices.BinarySearchFunc(x.rows, cursorOf(r), compareAge)
	x.rows = slices.Insert(x.rows, at, r)
}

func (x *ageIndex) remove(r *row) {
	if at, found := slices.BinarySearchFunc(x.rows, cursorOf(r), compareAge); found {
		x.rows = slices.Delete(x.rows, at, at+1)
	}
}

// before returns the rows older than the cursor, all of them for the zero one.
func (x *ageIndex) before(c taskbridge.ListCursor) []*row {
	if c.IsZero() {
		return x.rows
	}
	at, _ := slices.BinarySearchFunc(x.rows, c, compareAge)
	return x.rows[:at]
}

func cursorOf(r *row) taskbridge.ListCursor {
	return taskbridge.ListCursor{CreatedAt: r.task.CreatedAt, TaskID: r.task.ID}
}

func compareAge(r *row, c taskbridge.ListCursor) int {
	return cmp.Or(r.task.CreatedAt.Compare(c.CreatedAt), cmp.Compare(r.task.ID, c.TaskID))
}

// dueIndex is a heap of the rows that are owed one kind of work, the longest
// overdue on top. Each row knows its place, so a changed time costs O(log n).
type dueIndex struct {
	kind taskbridge.DueKind
	slot int // of row.duePlace
	rows []*row
}

// update puts the row where its present due time belongs, or takes it out.
func (x *dueIndex) update(r *row) {
	place, owed := r.duePlace[x.slot], !r.task.Due.Of(x.kind).IsZero()
	switch {
	case owed && place < 0:
		heap.Push(x, r)
	case owed:
		heap.Fix(x, place)
	case place >= 0:
		heap.Remove(x, place)
	}
}

// remove takes the row out if it is in.
func (x *dueIndex) remove(r *row) {
	if place := r.duePlace[x.slot]; place >= 0 {
		heap.Remove(x, place)
	}
}

// first returns the ids of at most limit rows that are due at the given time.
// It walks down the heap from its top along a frontier, itself a small heap, so
// that it costs O(limit log limit) however many rows wait.
func (x *dueIndex) first(at time.Time, limit int) []string {
	var ids []string
	walk := frontier{index: x}
	walk.add(0)
	for len(ids) < limit && len(walk.places) > 0 {
		place := heap.Pop(&walk).(int)
		r := x.rows[place]
		if r.task.Due.Of(x.kind).After(at) {
			break
		}
		ids = append(ids, r.task.ID)
		walk.add(2*place + 1)
		walk.add(2*place + 2)
	}
	return ids
}

func (x *dueIndex) Len() int { return len(x.rows) }

func (x *dueIndex) Less(i, j int) bool {
	a, b := x.rows[i], x.rows[j]
	if c := a.task.Due.Of(x.kind).Compare(b.task.Due.Of(x.kind)); c != 0 {
		return c < 0
	}
	return a.task.ID < b.task.ID
}

func (x *dueIndex) Swap(i, j int) {
	x.rows[i], x.rows[j] = x.rows[j], x.rows[i]
	x.rows[i].duePlace[x.slot], x.rows[j].duePlace[x.slot] = i, j
}

func (x *dueIndex) Push(v any) {
	r := v.(*row)
	r.duePlace[x.slot] = len(x.rows)
	x.rows = append(x.rows, r)
}

func (x *dueIndex) Pop() any {
	last := len(x.rows) - 1
	r := x.rows[last]
	x.rows[last] = nil
	x.rows = x.rows[:last]
	r.duePlace[x.slot] = -1
	return r
}

// frontier is a heap of places in a dueIndex.
type frontier struct {
	index  *dueIndex
	places []int
}

func (f *frontier) add(place int) {
	if place < len(f.index.rows) {
		heap.Push(f, place)
	}
}

func (f *frontier) Len() int           { return len(f.places) }
func (f *frontier) Less(i, j int) bool { return f.index.Less(f.places[i], f.places[j]) }
func (f *frontier) Swap(i, j int)      { f.places[i], f.places[j] = f.places[j], f.places[i] }
func (f *frontier) Push(v any)         { f.places = append(f.places, v.(int)) }

func (f *frontier) Pop() any {
	last := len(f.places) - 1
	place := f.places[last]
	f.places = f.places[:last]
	return place
}
