/*
 * Intrusive doubly linked lists. The caller owns every node; a node is in at most one list.
 * A node or head must be initialised before use; removing a node that is in no list is harmless.
 */
#ifndef CULE_BASE_LIST_H
#define CULE_BASE_LIST_H

#include "base/bytes.h"

#include <stdbool.h>

struct cule_list {
    struct cule_list *next;
    struct cule_list *prev;
};

static inline void cule_list_init(struct cule_list *l)
{
    l->next = l->prev = l;
}

static inline bool cule_list_empty(const struct cule_list *l)
{
    return l->next == l;
}

/* Puts node at the end of the list. */
static inline void cule_list_push(struct cule_list *head, struct cule_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void cule_list_remove(struct cule_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}

/* Takes the first node, or NULL from an empty list. */
static inline struct cule_list *cule_list_pop(struct cule_list *head)
{
    struct cule_list *n = head->next;
    if (n == head) {
        return NULL;
    }
    cule_list_remove(n);
    return n;
}

#define CULE_LIST_ENTRY(node, type, member) CULE_CONTAINER(node, type, member)
/* Walks a list; the current node may be removed while walking. */
#define CULE_LIST_EACH(node, head)                                                                                     \
    for (struct cule_list *node = (head)->next, *node##_next = node->next; (node) != (head);                           \
         (node) = node##_next, node##_next = (node)->next)

#endif
