package taskbridge

import "slices"

// Principal is who makes a call, as the host has authenticated it.
type Principal struct {
	// Subject is the stable identity; tasks that it creates have it as Owner.
	Subject string
	// Scopes is what its credential allows; [ScopedOwners] looks at it.
	Scopes []Scope
}

// HasScope reports whether the principal has the scope.
func (p Principal) HasScope(scope Scope) bool { return slices.Contains(p.Scopes, scope) }

// Scope is a right that a credential carries.
type Scope string

// The scopes.
const (
	// ScopeRead: to read one's own tasks.
	ScopeRead Scope = "tasks:read"
	// ScopeWrite: to create tasks, and to cancel one's own.
	ScopeWrite Scope = "tasks:write"
	// ScopeAdmin: to read and to cancel every owner's tasks. It is the only
	// exception to ownership, and does not let one create.
	ScopeAdmin Scope = "admin"
	// ScopeWorker: to work on every owner's tasks, over the worker API: read their
	// input, start them and report. It reaches nothing of the client's API.
	ScopeWorker Scope = "worker"
)

// Permission is what a principal wants to do with tasks.
type Permission string

// The permissions.
const (
	PermissionCreate Permission = "create"
	PermissionRead   Permission = "read"
	PermissionCancel Permission = "cancel"
)

// OwnershipPolicy decides what a principal may do. Methods are safe for
// concurrent use, quick, and have no effect.
type OwnershipPolicy interface {
	// Allows reports whether the principal may do that at all, whatever the
	// task. A refusal is told as [ErrForbidden], before any task is looked at.
	Allows(principal Principal, permission Permission) bool
	// MayAccess reports whether a principal that is allowed to do that may do
	// it with an owner's task. A refusal is told as [ErrTaskNotFound]: a foreign
	// task cannot be told from a missing one.
	MayAccess(principal Principal, owner string, permission Permission) bool
	// MayListAll reports whether the principal's lists hold every owner's tasks
	// and not only its own.
	MayListAll(principal Principal) bool
}

// OwnerOnly lets every principal with a subject do everything with its own tasks
// and nothing with others'.
type OwnerOnly struct{}

// Allows allows every principal that has a subject.
func (OwnerOnly) Allows(p Principal, _ Permission) bool { return p.Subject != "" }

// MayAccess allows the owner.
func (OwnerOnly) MayAccess(p Principal, owner string, _ Permission) bool {
	return p.Subject != "" && p.Subject == owner
}

// MayListAll is always false.
func (OwnerOnly) MayListAll(Principal) bool { return false }

// ScopedOwners lets a principal do with its own tasks what its scopes allow, and
// an administrator read and cancel everybody's.
type ScopedOwners struct{}

// Allows looks at the scopes.
func (ScopedOwners) Allows(p Principal, permission Permission) bool {
	if p.Subject == "" {
		return false
	}
	switch permission {
	case PermissionRead:
		return p.HasScope(ScopeRead) || p.HasScope(ScopeAdmin)
	case PermissionCancel:
		return p.HasScope(ScopeWrite) || p.HasScope(ScopeAdmin)
	case PermissionCreate:
		return p.HasScope(ScopeWrite)
	}
	return false
}

// MayAccess allows the owner and the administrator. The administrator's own
// rights with its own tasks are those of its scopes.
func (s ScopedOwners) MayAccess(p Principal, owner string, permission Permission) bool {
	if !s.Allows(p, permission) {
		return false
	}
	return p.Subject == owner || p.HasScope(ScopeAdmin)
}

// MayListAll is true for the administrator.
func (ScopedOwners) MayListAll(p Principal) bool {
	return p.Subject != "" && p.HasScope(ScopeAdmin)
}

// DenyAll allows nothing: the safe choice where nobody has decided yet.
type DenyAll struct{}

// Allows is always false.
func (DenyAll) Allows(Principal, Permission) bool { return false }

// MayAccess is always false.
func (DenyAll) MayAccess(Principal, string, Permission) bool { return false }

// MayListAll is always false.
func (DenyAll) MayListAll(Principal) bool { return false }
