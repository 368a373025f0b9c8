/* getaddrinfo(3) of the C library that this is compiled with: the IPv4 addresses of a name, one in each line. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **words) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *all, *one;
  char text[INET_ADDRSTRLEN];
  int error = count == 2 ? getaddrinfo(words[1], NULL, &hints, &all) : EAI_FAIL;
  if (error) {
    fprintf(stderr, "%s\n", gai_strerror(error));
    return 1;
  }
  for (one = all; one; one = one->ai_next)
    if (one->ai_family == AF_INET)
      puts(inet_ntop(AF_INET, &((struct sockaddr_in *)one->ai_addr)->sin_addr, text, sizeof text));
  freeaddrinfo(all);
  return 0;
}
