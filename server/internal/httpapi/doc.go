// Package httpapi is the HTTP transport: it decodes requests, calls one service
// of a [taskbridge.Bridge] for each, and encodes the answers, as
// docs/protocol.md has them. The router underneath (echo) is known to routes.go
// alone; everything else here is net/http.
package httpapi
