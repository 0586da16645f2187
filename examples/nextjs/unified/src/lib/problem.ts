/** What every route answers where it does not do what it was asked for. */
export function problem(status: number, code: string, message: string): Response {
  return Response.json({ code, message }, { status });
}
