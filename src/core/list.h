/* list.h - an intrusive, circular, doubly linked list; a link is in one list at most. */
#pragma once

#include "core/check.h"

#include <stdbool.h>
#include <stddef.h>

struct mr_list {
    struct mr_list *next;
    struct mr_list *prev;
};

static inline void mr_list_init(struct mr_list *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool mr_list_empty(const struct mr_list *head)
{
    return head->next == head;
}

/** True for a link that is in a list. Links must start zeroed; mr_list_del zeroes them again. */
static inline bool mr_list_linked(const struct mr_list *link)
{
    return link->next != NULL;
}

static inline void mr_list_append(struct mr_list *head, struct mr_list *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void mr_list_del(struct mr_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = NULL;
    link->prev = NULL;
}

/** Moves every element of `from` to the end of `to`; `from` is empty afterwards. */
static inline void mr_list_splice(struct mr_list *to, struct mr_list *from)
{
    if (mr_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    mr_list_init(from);
}
