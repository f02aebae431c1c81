package config

// RateLimit bounds what one principal may ask, and all streams together. 0 is
// no limit.
type RateLimit struct {
	RequestsPerSecond, CreatesPerSecond float64
	RequestsBurst, CreatesBurst         int
	ConcurrentRequests                  int
	Streams, TotalStreams               int
}

func defaultRateLimit() RateLimit {
	return RateLimit{
		RequestsPerSecond: 50, RequestsBurst: 100, CreatesPerSecond: 10, CreatesBurst: 50,
		ConcurrentRequests: 100, Streams: 200, TotalStreams: 20_000,
	}
}

const mostLimited = 1_000_000_000

var rateLimitGroup = group{"Limits of one principal (0: none; without access control, none unless set)", []setting{
	{"rateLimit.requestsPerSecond", "rate-limit-requests-per-second", "N", "requests in the long run",
		decimal(func(c *Config) *float64 { return &c.RateLimit.RequestsPerSecond })},
	{"rateLimit.requestsBurst", "rate-limit-requests-burst", "N", "requests in a burst",
		number(func(c *Config) *int { return &c.RateLimit.RequestsBurst }, 0, mostLimited)},
	{"rateLimit.createsPerSecond", "rate-limit-creates-per-second", "N", "new tasks in the long run",
		decimal(func(c *Config) *float64 { return &c.RateLimit.CreatesPerSecond })},
	{"rateLimit.createsBurst", "rate-limit-creates-burst", "N", "new tasks in a burst",
		number(func(c *Config) *int { return &c.RateLimit.CreatesBurst }, 0, mostLimited)},
	{"rateLimit.concurrentRequests", "rate-limit-concurrent-requests", "N", "requests at once, long polls among them",
		number(func(c *Config) *int { return &c.RateLimit.ConcurrentRequests }, 0, mostLimited)},
	{"rateLimit.streams", "rate-limit-streams", "N", "open streams",
		number(func(c *Config) *int { return &c.RateLimit.Streams }, 0, mostLimited)},
	{"rateLimit.totalStreams", "rate-limit-total-streams", "N", "open streams of all together, always",
		number(func(c *Config) *int { return &c.RateLimit.TotalStreams }, 0, mostLimited)},
}}

// completeRateLimit takes the defaults back where there is no access control:
// all requests are one principal's then. A burst without a rate bounds nothing.
func (c *Config) completeRateLimit() {
	defer func() {
		if c.RateLimit.RequestsPerSecond == 0 {
			c.RateLimit.RequestsBurst = 0
		}
		if c.RateLimit.CreatesPerSecond == 0 {
			c.RateLimit.CreatesBurst = 0
		}
	}()
	if c.Auth.On() {
		return
	}
	given, all := c.RateLimit, RateLimit{TotalStreams: c.RateLimit.TotalStreams}
	set := func(key string) bool { return c.sources["rateLimit."+key] != "" }
	if set("requestsPerSecond") {
		all.RequestsPerSecond, all.RequestsBurst = given.RequestsPerSecond, given.RequestsBurst
	}
	if set("createsPerSecond") {
		all.CreatesPerSecond, all.CreatesBurst = given.CreatesPerSecond, given.CreatesBurst
	}
	if set("concurrentRequests") {
		all.ConcurrentRequests = given.ConcurrentRequests
	}
	if set("streams") {
		all.Streams = given.Streams
	}
	c.RateLimit = all
}
