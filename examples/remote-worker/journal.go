package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// accepted is a task that the server has been told this worker has. It does not
// post it again, so the worker must not forget it.
type accepted struct {
	TaskID string `json:"taskId"`
	Token  string `json:"token"`
}

// journal keeps the tasks that were accepted and have not ended, a file each.
type journal struct{ dir string }

func openJournal(dir string) (journal, error) {
	return journal{dir}, os.MkdirAll(dir, 0o700)
}

// path is not made of the id itself, which may be as long as a file's name.
func (j journal) path(taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	return filepath.Join(j.dir, hex.EncodeToString(sum[:])+".json")
}

// add writes the task down. It is on the disk when add returns.
func (j journal) add(task accepted) (err error) {
	content, err := json.Marshal(task)
	if err != nil {
		return err
	}
	path := j.path(task.TaskID)
	file, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	dir, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (j journal) remove(taskID string) error { return os.Remove(j.path(taskID)) }

func (j journal) tasks() (tasks []accepted, err error) {
	files, err := filepath.Glob(filepath.Join(j.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var task accepted
		if err := json.Unmarshal(content, &task); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		tasks = append(tasks, task)
	}
	return tasks, nil
}
