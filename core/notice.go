package taskbridge

import "context"

// NumberedNoticer is implemented by lifecycles that recognise a notice which is
// made again. [LocalLifecycle] does.
type NumberedNoticer interface {
	// NoticeOnce is [TaskLifecycle.Notice] under an ordinal of the caller's, so that
	// it is safe to repeat, from several processes too: of one source, whose
	// ordinals rise from 1 with gaps allowed, an ordinal that is not above the last
	// one recorded is recognised and changes nothing. A stream takes a bounded
	// number of sources ([MaxProducers], with the producers of its reports).
	NoticeOnce(ctx context.Context, taskID, source string, ordinal int64, message Message) error
}

var _ NumberedNoticer = (*LocalLifecycle)(nil)

// Notice appends a message without a claim; see [TaskLifecycle].
func (l *LocalLifecycle) Notice(ctx context.Context, taskID string, message Message) error {
	return l.notice(ctx, taskID, Producer{noticeProducer, 1}, 0, message)
}

// NoticeOnce appends a message without a claim; see [NumberedNoticer].
func (l *LocalLifecycle) NoticeOnce(ctx context.Context, taskID, source string, ordinal int64, message Message) error {
	const prefix = noticeProducer + "-"
	if err := validateName("source", source, maxNameBytes-len(prefix)); err != nil {
		return err
	}
	if ordinal < 1 {
		return argumentErrorf("ordinal", "must be 1 or more")
	}
	return l.notice(ctx, taskID, Producer{prefix + source, 1}, ordinal, message)
}

func (l *LocalLifecycle) notice(ctx context.Context, taskID string, producer Producer, ordinal int64, message Message) error {
	payload, err := message.payload()
	if err == nil {
		err = checkSize("payload", payload, l.limits.EventPayload)
	}
	if err != nil {
		return err
	}
	row, err := l.journal.load(ctx, taskID)
	if err != nil {
		return err
	}
	if row.Status.Terminal() {
		return ErrTaskFinished
	}
	now := l.journal.now()
	_, err = l.journal.events.AppendEvent(ctx, EventAppend{
		TaskID: taskID, Type: EventMessage, CreatedAt: now, Payload: payload,
		Tag:      EventTag(EventMessage, now, 0, payload),
		Producer: producer, Ordinal: ordinal,
		MaxSequence: l.limits.StreamEvents,
	})
	return err
}
