/** The public name, and the two by which plain curl reaches a gateway on this machine. */
export const shopHosts = ["api.example.com", "localhost", "127.0.0.1"];
