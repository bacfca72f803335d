/* The function that this library stands in front of. */
#ifndef NEXT_H
#define NEXT_H

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#endif
