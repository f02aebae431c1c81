package memory

// Reopened closes the store and returns another one with its data: as a durable
// store that is opened again. A closed store no longer touches its data.
func (s *Store) Reopened() (*Store, error) {
	if err := s.Close(); err != nil {
		return nil, err
	}
	next := NewStore(Options{Clock: s.Leaser.clock})
	s.Tasks.mu.Lock()
	defer s.Tasks.mu.Unlock()
	s.Events.mu.Lock()
	defer s.Events.mu.Unlock()
	next.byID, next.byKey, next.byAge, next.owners = s.byID, s.byKey, s.byAge, s.owners
	next.due, next.tombstones = s.due, s.tombstones
	next.streams = s.streams
	return next, nil
}
