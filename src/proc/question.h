/*
 * question.h - the way of a question from one worker to all others, and of their answers back.
 *
 * It leads through the master, which knows them all: those of its serving team and, during a
 * reload, of the team beside it. Text travels in a file, as it may be of any length.
 * session/inquiry.h has the two ends. Private to src/proc.
 */
#pragma once

#include "proc/channel.h"
#include "proc/team.h"
#include "session/inquiry.h"

/** Asks, on a worker's channel to the master. False if that failed. */
bool mr_question_send(int channel, uint32_t number, struct mr_slice question);

/** Handles a message to a worker if it has to do with questions; else returns false. */
bool mr_question_message(int channel, const struct mr_message *msg, struct mr_inquiries *inquiries,
                         struct mr_service *services, uint32_t n_services);

/** The master's: who has not answered whom. All zero but `open` at first. */
struct mr_questions {
    struct mr_list open;
};

void mr_questions_init(struct mr_questions *questions);

/** Passes on a question or an answer of a worker. */
void mr_questions_pass(struct mr_questions *questions, struct mr_team *const *teams,
                       uint32_t n_teams, struct mr_child *from, struct mr_message *msg);

/** A worker has ended, and with it its clients: answers for it what it was asked. */
void mr_questions_end(struct mr_questions *questions, struct mr_team *const *teams,
                      uint32_t n_teams, pid_t pid);

void mr_questions_fini(struct mr_questions *questions);
