package httpapi

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/taskbridge/taskbridge/core/workerapi"
)

// routes lays out the paths. Handlers get the response writer that came in, not
// the router's own.
func (a *API) routes(worker http.Handler) http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = a.routingFailed

	route := func(method, path string, h handler) {
		e.Add(method, path, func(c echo.Context) error {
			a.opts.RouteReached(c.Request().Context(), path)
			var taskID string
			if len(c.ParamNames()) > 0 {
				if taskID = pathParameter(c, "taskId"); taskID == "" {
					return echo.ErrNotFound
				}
			}
			a.serve(c.Response().Writer, c.Request(), taskID, h)
			return nil
		})
	}
	route(http.MethodPost, "/api/v1/tasks", a.createTask)
	route(http.MethodGet, "/api/v1/tasks", a.listTasks)
	route(http.MethodGet, "/api/v1/tasks/ws", a.webSocket)
	route(http.MethodGet, "/api/v1/tasks/:taskId", a.getTask)
	route(http.MethodGet, "/api/v1/tasks/:taskId/events", a.pollEvents)
	route(http.MethodGet, "/api/v1/tasks/:taskId/events/stream", a.streamEvents)
	route(http.MethodPost, "/api/v1/tasks/:taskId/cancel", a.cancelTask)

	if worker != nil {
		worker = a.worker(worker)
		for _, name := range []string{"start", "reports", "attempt", "input", "notices", "settle"} {
			path := workerapi.BasePath + ":taskId/" + name
			e.Any(path, func(c echo.Context) error {
				a.opts.RouteReached(c.Request().Context(), path)
				worker.ServeHTTP(c.Response().Writer, c.Request())
				return nil
			})
		}
	}

	pages := map[string]http.Handler{"/health": http.HandlerFunc(a.health), "/ready": http.HandlerFunc(a.ready)}
	maps.Copy(pages, a.opts.Pages)
	for path, h := range pages {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			e.Add(method, path, func(c echo.Context) error {
				a.opts.RouteReached(c.Request().Context(), path)
				h.ServeHTTP(c.Response().Writer, c.Request())
				return nil
			})
		}
	}
	return e
}

// unread bounds the time for a body that no handler reads: a request that is
// refused, or of no route. The server waits for it before it answers, and by
// itself would wait for ever. Whoever reads a body sets a limit of its own.
func (a *API) unread(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			control := http.NewResponseController(w)
			if supported(control.SetReadDeadline(time.Now().Add(a.opts.BodyTimeout))) != nil {
				panic(http.ErrAbortHandler) // the connection has gone
			}
		}
		next.ServeHTTP(w, r)
	})
}

// pathParameter returns the decoded parameter, "" for one that does not decode.
// The router matches the raw path where a path has one, and leaves it raw.
func pathParameter(c echo.Context, name string) string {
	value := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return value
	}
	value, err := url.PathUnescape(value)
	if err != nil {
		return ""
	}
	return value
}

// routingFailed answers for the router where no handler was reached.
func (a *API) routingFailed(err error, c echo.Context) {
	p := &problem{status: http.StatusNotFound, code: codeNotFound, message: "there is no such route"}
	var refused *echo.HTTPError
	if errors.As(err, &refused) && refused.Code == http.StatusMethodNotAllowed {
		// The router has set Allow.
		p = &problem{status: http.StatusMethodNotAllowed, code: codeMethodNotAllowed, message: "the route does not know this method"}
	}
	a.fail(&call{w: c.Response().Writer, r: c.Request()}, p)
}
