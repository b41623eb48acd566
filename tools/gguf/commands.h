/* The subcommands of ferry-gguf. Each gets its own name as argv[0], prints to standard output,
 * errors to standard error, and returns the exit status: 0, 1 for a failure, 2 for a wrong command
 * line. */
#ifndef FR_TOOLS_GGUF_COMMANDS_H
#define FR_TOOLS_GGUF_COMMANDS_H

int gguf_dump(int argc, char **argv);
int gguf_types(int argc, char **argv);
int gguf_decode(int argc, char **argv);
int gguf_encode(int argc, char **argv);
int gguf_repack(int argc, char **argv);
int gguf_synth(int argc, char **argv);

#endif
