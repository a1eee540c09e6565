// A real OpenID provider for the tests: oidc-provider, with people who sign in by a request header instead of a form.
// Arguments: one JSON object {redirect_uris, post_logout_redirect_uris, backchannel_logout_uri}. Writes its address to
// standard output and ends with its standard input.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const options = JSON.parse(process.argv[2]);
const people = new Map();
const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const client = {
  response_types: ['code'],
  grant_types: ['authorization_code'],
  redirect_uris: options.redirect_uris,
  post_logout_redirect_uris: options.post_logout_redirect_uris,
  backchannel_logout_uri: options.backchannel_logout_uri,
  backchannel_logout_session_required: true,
};
const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: 'gpu-commons', client_secret: 'correct-horse:battery/staple+0123456789' },
    { ...client, client_id: 'gpu-commons-public', token_endpoint_auth_method: 'none' },
  ],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: 'first', alg: 'RS256' }] },
  cookies: { keys: ['only-for-tests'] },
  claims: {
    openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'],
    acr: null, amr: null, auth_time: null, iss: null, sid: null,
  },
  scopes: ['openid', 'email', 'profile', 'groups'],
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  // Its guard refuses addresses of the machine itself, where the tests' receiver listens.
  fetch: (url, init) => fetch(url, { ...init, dispatcher: undefined }),
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, ...people.get(sub) }) }),
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({
      accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId,
    });
    grant.addOIDCScope('openid email profile groups');
    await grant.save();
    return grant;
  },
});

const handle = provider.callback();
server.on('request', async (request, response) => {
  try {
    if (request.url.startsWith('/people/')) {
      let body = '';
      for await (const piece of request) body += piece;
      people.set(decodeURIComponent(request.url.slice('/people/'.length)), JSON.parse(body));
      response.end();
    } else if (request.url.startsWith('/interaction/')) {
      const account = request.headers['x-person'];
      const result = account ? { login: { accountId: account } } : { error: 'access_denied' };
      await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
    } else {
      handle(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
});
console.log(issuer);
process.stdin.on('end', () => process.exit(0)).resume();
