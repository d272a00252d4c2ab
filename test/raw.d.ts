/** Vite hands a file's text to a test that asks for it so. */
declare module "*?raw" {
  const text: string;
  export default text;
}
