package sqlitestore

import "container/list"

// cache keeps what the writer used last, by task id. It belongs to the writer.
// What it holds is what the file will hold after the commit that is under way,
// so it is cleared where that fails.
type cache[V any] struct {
	limit  int
	byTask map[string]*list.Element
	recent *list.List // of *cached[V], the last used first
}

type cached[V any] struct {
	taskID string
	value  V
}

func newCache[V any](limit int) *cache[V] {
	return &cache[V]{limit: limit, byTask: make(map[string]*list.Element), recent: list.New()}
}

func (c *cache[V]) get(taskID string) (value V, ok bool) {
	e, ok := c.byTask[taskID]
	if !ok {
		return value, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached[V]).value, true
}

func (c *cache[V]) put(taskID string, value V) {
	if e, ok := c.byTask[taskID]; ok {
		e.Value.(*cached[V]).value = value
		c.recent.MoveToFront(e)
		return
	}
	c.byTask[taskID] = c.recent.PushFront(&cached[V]{taskID, value})
	if c.recent.Len() > c.limit {
		c.removeElement(c.recent.Back())
	}
}

func (c *cache[V]) remove(taskID string) {
	if e, ok := c.byTask[taskID]; ok {
		c.removeElement(e)
	}
}

func (c *cache[V]) removeElement(e *list.Element) {
	delete(c.byTask, e.Value.(*cached[V]).taskID)
	c.recent.Remove(e)
}

func (c *cache[V]) clear() {
	clear(c.byTask)
	c.recent.Init()
}
