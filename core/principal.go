package taskbridge

// Principal is who makes a call, as the host has authenticated it.
type Principal struct {
	// Subject is the stable identity; tasks that it creates have it as Owner.
	Subject string
}

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
//
// A refusal by MayAccess is told as [ErrTaskNotFound]: a foreign task cannot be
// told from a missing one.
type OwnershipPolicy interface {
	// MayCreate reports whether the principal may create tasks of its own.
	MayCreate(principal Principal) bool
	// MayAccess reports whether the principal may do that with an owner's task.
	MayAccess(principal Principal, owner string, permission Permission) bool
	// MayListAll reports whether the principal's lists hold every owner's tasks
	// and not only its own.
	MayListAll(principal Principal) bool
}

// OwnerOnly lets every principal with a subject create tasks, and lets it see
// and cancel its own and no others.
type OwnerOnly struct{}

// MayCreate allows every principal that has a subject.
func (OwnerOnly) MayCreate(p Principal) bool { return p.Subject != "" }

// MayAccess allows the owner.
func (OwnerOnly) MayAccess(p Principal, owner string, _ Permission) bool {
	return p.Subject != "" && p.Subject == owner
}

// MayListAll is always false.
func (OwnerOnly) MayListAll(Principal) bool { return false }

// DenyAll allows nothing: the safe choice where nobody has decided yet.
type DenyAll struct{}

// MayCreate is always false.
func (DenyAll) MayCreate(Principal) bool { return false }

// MayAccess is always false.
func (DenyAll) MayAccess(Principal, string, Permission) bool { return false }

// MayListAll is always false.
func (DenyAll) MayListAll(Principal) bool { return false }
