// Package fakes holds stand-ins for runtimes, time and failing storage: for the
// tests of whoever embeds TaskBridge or writes a store or an executor for it,
// and for demonstrations.
//
//   - [DeterministicFakeExecutor] runs scripted tasks inside this process and
//     makes the same events every time.
//   - [ScriptedExecutor] answers as a test tells it: a runtime that forgets,
//     stays silent, or takes a task late.
//   - [ManualClock] is moved by hand, so that no test sleeps.
//   - [Faults] is a plan of failures shared by the wrappers [WrapStores],
//     [WrapTasks], [WrapEvents], [WrapStore], [WrapLeaser] and [WrapExecutor]:
//     calls fail before or after their effect, hang, wait, or the whole
//     process "dies" at a chosen step.
//
// Package crashtest, below this one, is a suite over any pair of stores that
// breaks everything at each step and checks what was promised.
package fakes
