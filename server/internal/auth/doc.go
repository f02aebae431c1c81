// Package auth says who makes a request.
//
// [New] makes the server's [Authenticator] of the ways that the operator turned
// on, any of them at once:
//
//   - [APIKeys]: random keys, whose hashes stand in a file;
//   - [JWT]: tokens of an identity provider, checked with its published keys;
//   - [Identity]: a header from a proxy that has authenticated the user itself.
//
// [Anyone] takes all requests for one principal's, for servers that nobody but
// the machine's own users can reach.
//
// # What a request may present
//
//	Authorization: Bearer KEY-OR-TOKEN
//	X-API-Key: KEY
//	the identity headers
//	Sec-WebSocket-Protocol: taskbridge.v1, bearer.KEY-OR-TOKEN    where turned on
//	?access_token=KEY-OR-TOKEN                                    where turned on
//
// The last two are for browsers, whose WebSocket and EventSource cannot set
// headers. A token in an address ends up in the logs of proxies and in the
// browser's history, so it is off by default and never read on other routes
// than those that [Options.QueryToken] names.
//
// A credential that is there and bad is refused at once, whatever else the
// request has: nothing falls through to another way. Two different credentials
// in one request are refused, since no order between them would be safe to
// guess. What belongs to a way that is turned off is not looked at.
//
// # For how long an answer holds
//
// Authenticate keeps nothing of a request and may be asked again with the same
// one at any time: a stream asks while it lives, and ends when the answer
// changes. It is cheap (one hash, or one signature) and goes to the network only
// for a token whose key it does not know.
//
//	an API key ends at its expiresAt, or once taken off the file: within
//	  ReloadInterval + 0.5 s; while the file is missing or broken, the keys that
//	  were read last are good for MaxStale and then nobody is let in
//	a JWT ends at its exp + Leeway, or once its key has left the key set: within
//	  RefreshInterval + FetchTimeout; while the set cannot be fetched, the keys
//	  that were fetched last are good for MaxStale and then nobody is let in
//	an unsigned identity ends when its peer is no proxy any more, which is with
//	  the process; a signed one MaxAge after it was signed
//
// What cannot be decided now (no key set yet, a file gone for too long) is no
// [ErrUnauthenticated]: clients take that for final.
//
// # What is kept out of logs and errors
//
// No error, no log line and no answer holds a credential or a part of one.
package auth
